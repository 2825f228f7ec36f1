"""The command ``deploy``: an archive of this machine becomes what a package is made of, here or on a cluster."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloaca.cli.about_package import package_summary
from cloaca.cli.kinds import full_name
from cloaca.cli.place import DEFAULT_NAMESPACE, Cluster, Laptop
from cloaca.cli.running import absence_of_daemon, daemon_process
from cloaca.cli.session import NamespaceOption, Session, command, commands
from cloaca.cli.source import SUFFIX, archive_bytes
from cloaca.cli.terminal import remark, say
from cloaca.errors import AlreadyExists, CloacaError, Conflict, NotFound, PackageError
from cloaca.packages.archive import Archive, Limits, read_archive
from cloaca.packages.files import read_file
from cloaca.resources import CloacinaPackage, ObjectMeta, PackageSpec, Ref
from cloaca.resources.conditions import STALLED, find, is_true
from cloaca.resources.names import CLUSTER_PACKAGE_LIMIT, FOLDER, FOLDER_LABEL, object_name
from cloaca.resources.package import ConfigMapSource, PackageSource
from cloaca.store import Store

if TYPE_CHECKING:
    from cloaca.store.kubernetes.shipped import Shipment
    from cloaca.store.kubernetes.store import KubernetesStore

app = commands()

ATTEMPTS = 20  # others write the same package meanwhile


@command(app, "deploy")
def deploy(
    session: Session,
    archive: Annotated[
        Path, typer.Argument(metavar="ARCHIVE|FOLDER", help="A folder is packed first.", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option(help="Of the CloacinaPackage, instead of the archive's own.", show_default=False)
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is Ready; exit code 1 if it is refused.")] = False,
    namespace: NamespaceOption = "",
) -> None:
    """Deploy an archive of this machine: here, or on a cluster.

    Makes the package, or has it use this archive from now on.

    On a cluster the archive goes into ConfigMaps beside the package, in parts where it does not fit into one, and the
    package pins its digest. Whenever the command is killed, the package names a whole archive, the old one or the new;
    calling it again completes it. Everything else in the package's spec stays as it is.

    In a home the archive goes into the folder packages, and takes the place of the package's archives there.

    \b
    Example:
      cloaca deploy data-ingest-1.0.0.cloacina
      cloaca deploy . --kube-context production -n team-a --wait
    """
    limits = Limits()
    data = archive_bytes(archive, limits)
    read = read_archive(data, limits)
    place = session.place
    if isinstance(place, Laptop):
        ref = _copy(session, place, read, data, name, namespace)
    else:
        ref = _ship(session, place, read, data, name, namespace)
    idle = absence_of_daemon(place.home) if isinstance(place, Laptop) and daemon_process(place.home) is None else ""
    if not wait:
        if idle:
            remark(f"note: {idle}")
        return
    if idle:
        raise CloacaError(f"{ref.name} is deployed, but --wait would wait forever: {idle}")
    session.with_store(partial(_accepted, ref, read.digest), make=True)


def _named(read: Archive) -> str:
    return f"version {read.manifest.version}, {read.digest}"


# --- in a home


def _copy(session: Session, place: Laptop, read: Archive, data: bytes, name: str | None, namespace: str) -> Ref:
    package = object_name(read.manifest.name)
    if name not in (None, package) or namespace != DEFAULT_NAMESPACE:
        raise CloacaError(
            f"an archive in the packages folder of a home becomes the package {package!r} in namespace "
            f"{DEFAULT_NAMESPACE!r}: leave out --name and -n, or declare the package with `cloaca apply`"
        )
    folder = place.home.packages
    if place.has_store:
        session.with_store(partial(_refuse_a_package_by_hand, package))
    _refuse_a_namesake(folder, package, read.manifest.name)
    for made in (place.home.root, folder):
        made.mkdir(parents=True, exist_ok=True, mode=0o700)  # others must not be able to write there
    target = folder / f"{package}-{read.manifest.version}{SUFFIX}"
    same = target.exists() and target.read_bytes() == data
    if not same:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".deploy-", delete=False) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(target)  # at once: the daemon never sees half of it
    for other in sorted(folder.glob(f"*{SUFFIX}")):
        if other != target and _package_of(other) == read.manifest.name:
            other.unlink(missing_ok=True)
            remark(f"{other.name} removed: it is of the same package")
    ref = Ref(CloacinaPackage.KIND, namespace, package)
    say(f"{full_name(ref)} {'unchanged' if same else 'deployed'}: {_named(read)}, as {target}")
    return ref


def _refuse_a_namesake(folder: Path, package: str, name: str) -> None:
    """Refuse a package beside one of another name that gives the same object name: it would take that one's place."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        other = _package_of(path)
        if other is not None and other != name and object_name(other) == package:
            raise CloacaError(
                f"package {name!r} was not deployed: {path} is of package {other!r}, and both names give the object "
                f"name {package!r}: rename one of the two packages, or remove that file first"
            )


async def _refuse_a_package_by_hand(name: str, store: Store) -> None:
    known = await store.get(CloacinaPackage, name, DEFAULT_NAMESPACE)
    if known is not None and known.metadata.labels.get(FOLDER_LABEL) != FOLDER:
        raise CloacaError(
            f"package {name!r} was applied by hand, with {known.spec.source.url}, which no archive in the packages "
            "folder changes: edit its spec.source, or delete it first"
        )


def _package_of(path: Path) -> str | None:
    """The name of the package that the archive at ``path`` is of, as its manifest has it; None: it cannot be read."""
    try:
        return read_archive(read_file(path, Limits().packed_bytes)).manifest.name
    except (OSError, PackageError):
        return None


# --- on a cluster


def _ship(session: Session, place: Cluster, read: Archive, data: bytes, name: str | None, namespace: str) -> Ref:
    from cloaca.store.kubernetes.shipped import Shipment  # needs an HTTP client, which a laptop need not have

    package = name or object_name(read.manifest.name)
    if len(package) > CLUSTER_PACKAGE_LIMIT or object_name(package) != package:
        raise CloacaError(
            f"{package!r} cannot be the name of a package on a cluster: it has to be lower case letters, digits and "
            f"'-', at most {CLUSTER_PACKAGE_LIMIT}: give another one with --name"
        )
    shipment = Shipment(package=package, namespace=namespace, digest=read.digest, data=data)
    outcome, parts = session.with_cluster(place, partial(shipped, shipment))
    ref = Ref(CloacinaPackage.KIND, namespace, package)
    count = "one ConfigMap" if parts == 1 else f"{parts} ConfigMaps"
    say(f"{full_name(ref)} {outcome}: {_named(read)}, in {count}")
    return ref


async def shipped(shipment: Shipment, store: KubernetesStore) -> tuple[str, int]:
    """(what became of the package, number of ConfigMaps). Whatever the package names is whole, also in between."""
    from cloaca.store.kubernetes.shipped import clear, put

    for _ in range(ATTEMPTS):
        seen = await store.get(CloacinaPackage, shipment.package, shipment.namespace)
        await put(store.api, shipment, seen)  # before the package names them
        try:
            outcome, package = await _name_it(store, shipment, seen)
        except (AlreadyExists, Conflict, NotFound):
            continue  # somebody else wrote it: look again
        # Again: a new package owns them only now, and who deployed at the same time may have cleared them away.
        parts = await put(store.api, shipment, package)
        await clear(store.api, shipment, None if seen is None else seen.spec.source.config_map)
        return outcome, parts
    raise Conflict(f"package {shipment.package!r} is written by others all the time, so it was not deployed: try again")


async def _name_it(store: Store, shipment: Shipment, seen: CloacinaPackage | None) -> tuple[str, CloacinaPackage]:
    source = PackageSource(config_map=ConfigMapSource(name=shipment.source.name, key=shipment.source.key))
    if seen is None:
        metadata = ObjectMeta(name=shipment.package, namespace=shipment.namespace)
        spec = PackageSpec(source=source, digest=shipment.digest)
        return "created", await store.create(CloacinaPackage(metadata=metadata, spec=spec))
    wanted = seen.with_spec(source=source, digest=shipment.digest)
    if wanted == seen:
        return "unchanged", seen
    return "configured", await store.update(wanted)


# --- waiting


async def _accepted(ref: Ref, digest: str, store: Store) -> None:
    """Follow the package until the archive is active and all is well. Raises CloacaError where it never will be."""
    said = ""
    async with store.changes() as changes:
        while True:
            package = await store.get(CloacinaPackage, ref.name, ref.namespace)
            if package is not None and package.spec.digest == digest:
                status = package.status
                current = status.observed_generation == package.metadata.generation
                active = status.active is not None and status.active.digest == digest
                if current and active and is_true(status.conditions, "Ready"):
                    say(package_summary(package))
                    return
                stalled = find(status.conditions, STALLED)
                if current and stalled is not None and stalled.status.value == "True":
                    raise CloacaError(f"package {ref.name!r} was refused: {stalled.reason}: {stalled.message}")
                if package_summary(package) != said:
                    said = package_summary(package)
                    remark(said)
            async for change in changes:
                if change.ref == ref:
                    break
