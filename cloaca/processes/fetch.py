"""Get the archive of a package and say everything about it that can be said without running it.

The first container of an inspection's pod on a cluster, a child process of the daemon on a laptop. It runs none of the
package's code. What it found is its last words; the bytes go to a folder, in parts as pods mount them, and on a cluster
into ConfigMaps of the package as well.
"""

from __future__ import annotations

import asyncio
import random
import resource
import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cloaca.errors import AlreadyExists, SourceError, StoreError
from cloaca.packages.addresses import SourcePolicy
from cloaca.packages.archive import Limits, digest_of
from cloaca.packages.examine import Examined, Step, examine
from cloaca.packages.http import Answer
from cloaca.packages.sources import UnsupportedSource, fetch, read_credentials, read_parts
from cloaca.packages.versions import python_fault
from cloaca.processes.exits import obey_at_once
from cloaca.processes.fetch_report import FetchReport, Refusal, refused, write_fetch_report
from cloaca.processes.mounted import DIGEST_FILE, say_last
from cloaca.store.kubernetes.archives import PART_BYTES, package_manifest, package_parts

GO_ON = 0
STOP = 1
"""Exit code where there is nothing to import: a refusal, or bytes that are known."""
MEMORY = 512 * 1024 * 1024
"""Bytes of address space of a fetch."""
SECONDS = 60
"""Of the processor's time that a fetch may take."""
SMALL_MANIFEST = 1024
"""Bytes of a manifest, compressed, up to which what an import reports always fits."""
_SLACK = 1024 * 1024
_REASONS: dict[Step, Refusal] = {
    Step.ARCHIVE: "ArchiveInvalid",
    Step.MANIFEST: "ManifestInvalid",
    Step.AGREEMENT: "NamesDisagree",
}


def limits_as_arguments(limits: Limits) -> list[str]:
    """What tells a fetch the limits of an archive."""
    packed, unpacked, members, sources = limits.packed_bytes, limits.unpacked_bytes, limits.files, limits.source_bytes
    return [f"--packed={packed}", f"--unpacked={unpacked}", f"--members={members}", f"--sources={sources}"]


def policy_as_arguments(policy: SourcePolicy) -> list[str]:
    """What tells a fetch which addresses it may reach."""
    return [
        *(["--allow-local"] if policy.local else []),
        *(["--allow-private"] if policy.allow_private else []),
        *(f"--allowed-host={host}" for host in sorted(policy.allowed_hosts)),
    ]


def main(given: Sequence[str] | None = None) -> int:
    """Returns 0 where the archive may be imported, 1 with a report that says why not."""
    signal.signal(signal.SIGTERM, obey_at_once)
    asked = _arguments().parse_args(given)
    limits = Limits(
        packed_bytes=asked.packed, unpacked_bytes=asked.unpacked, files=asked.members, source_bytes=asked.sources
    )
    _limit(asked, limits)
    try:
        report = _waited(asked, limits)
    except MemoryError:
        said = f"reading the archive took more than {asked.memory // 1024**2:,} MiB of memory: make it smaller"
        report = refused("ArchiveInvalid", said)
    if report.refusal is not None and asked.words is None:
        print(f"{report.refusal}: {report.message}", file=sys.stderr)
    say_last(write_fetch_report(report), asked.words)
    return STOP if report.refusal is not None or report.unchanged else GO_ON


def _arguments() -> ArgumentParser:
    parser = ArgumentParser(description="Get the archive of a package and look at it without running it.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--url", help="where it is")
    source.add_argument("--parts", type=Path, help="folder with the parts of it: 000, 001 …")
    parser.add_argument("--named", default="the source", help="what to call the folder")
    parser.add_argument("--secret", type=Path, help="folder with credentials: token, or username and password")
    parser.add_argument("--secret-named", default="", help="what to call that one")
    parser.add_argument("--local-files", action="store_true", help="whether file: URLs are read")
    parser.add_argument("--allow-private", action="store_true", help="whether private addresses may be reached")
    parser.add_argument("--allowed-host", action="append", default=[], help="a host that may have a private address")
    parser.add_argument("--allow-local", action="store_true", help="whether every address may be reached, by http too")
    parser.add_argument("--this-python", action="store_true", help="refuse what this version of Python cannot run")
    parser.add_argument("--digest", help="refuse any other")
    parser.add_argument("--known", action="append", default=[], help="digest of an archive that need not be looked at")
    parser.add_argument("--revision", help="of the known archive, as the source calls it")
    parser.add_argument("--every", type=float, help="wait for news, and ask for them after so many seconds each")
    parser.add_argument("--after", type=float, default=0.0, help="seconds before the first time")
    parser.add_argument("--out", type=Path, required=True, help="folder for the parts")
    parser.add_argument("--words", type=Path, help="file for the report, instead of the container's last words")
    parser.add_argument("--package", help="publish as ConfigMaps of this package")
    parser.add_argument("--uid", default="", help="of the package")
    parser.add_argument("--namespace", default="", help="of the package")
    defaults = Limits()
    parser.add_argument("--packed", type=int, default=defaults.packed_bytes, help="bytes of an archive")
    parser.add_argument("--unpacked", type=int, default=defaults.unpacked_bytes, help="bytes of its files")
    parser.add_argument("--members", type=int, default=defaults.files, help="files of an archive")
    parser.add_argument("--sources", type=int, default=defaults.source_bytes, help="bytes of its Python files")
    parser.add_argument("--memory", type=int, default=MEMORY, help="bytes of address space")
    return parser


def _limit(asked: Namespace, limits: Limits) -> None:
    """Have the system end this process where an archive makes it take more than it may."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    for what, most in (
        (resource.RLIMIT_AS, asked.memory),
        (resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + SECONDS),
        (resource.RLIMIT_FSIZE, limits.packed_bytes + _SLACK),
    ):
        with suppress(OSError, ValueError):  # not on every system, and not over a lower limit that holds already
            resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


def _waited(asked: Namespace, limits: Limits) -> FetchReport:
    """What the source gives; where it is to be waited for news, once that is not known yet."""
    if asked.every is None:
        return _fetched(asked, limits)
    pause = asked.after
    while True:
        time.sleep(pause * random.uniform(1.0, 1.1))  # not all packages at once
        _limit(asked, limits)
        report = _fetched(asked, limits)
        if not report.unchanged:
            return report
        if report.revision is not None and asked.known and report.digest == asked.known[0]:
            asked.revision = report.revision
        pause = asked.every


def _fetched(asked: Namespace, limits: Limits) -> FetchReport:
    try:
        answer = _ask(asked, limits)
    except UnsupportedSource as error:
        return refused("SourceUnsupported", str(error))
    except SourceError as error:
        return refused("FetchFailed", str(error), retry=True)
    if answer.data is None:
        return FetchReport(digest=asked.known[0], revision=answer.revision, unchanged=True)
    digest = digest_of(answer.data)
    found: dict[str, Any] = {"digest": digest, "size": len(answer.data), "revision": answer.revision}
    if asked.digest not in (None, digest):
        said = f"spec.digest pins {asked.digest}, but the source gave {digest}"
        return refused("DigestMismatch", said, **found)
    if digest in asked.known:
        return FetchReport(unchanged=True, **found)
    examined = examine(answer.data, limits)
    if examined.manifest is not None:
        found["version"] = examined.manifest.version
        fault = python_fault(examined.manifest.python.requires_python) if asked.this_python else None
        if fault is not None:  # before what its code says: this Python may not even read that
            return refused("PythonUnsupported", fault, **found)
    if examined.manifest is None or examined.refused_at is not None:
        reason = _REASONS[examined.refused_at or Step.ARCHIVE]
        return refused(reason, "\n".join(examined.faults), **found)
    try:
        found["published"] = _keep(answer.data, digest, examined, asked)
    except StoreError as error:
        return refused("FetchFailed", f"the archive could not be kept: {error}", retry=True)
    except OSError as error:
        return refused("FetchFailed", f"the archive could not be kept in {asked.out}: {error.strerror}", retry=True)
    return FetchReport(**found)


def _ask(asked: Namespace, limits: Limits) -> Answer:
    if asked.parts is not None:
        return Answer(data=read_parts(asked.parts, limit=limits.packed_bytes, named=asked.named))
    credentials = None if asked.secret is None else read_credentials(asked.secret, named=asked.secret_named)
    policy = SourcePolicy(
        local=asked.local_files or asked.allow_local,
        allow_private=asked.allow_private,
        allowed_hosts=frozenset(asked.allowed_host),
    )
    policy.check_url(asked.url, pinned=asked.digest is not None)
    return fetch(
        asked.url,
        limit=limits.packed_bytes,
        files=asked.local_files,
        policy=policy,
        credentials=credentials,
        revision=asked.revision if asked.known else None,
    )


def _keep(data: bytes, digest: str, examined: Examined, asked: Namespace) -> bool:
    """Lay the archive out as pods mount it, and publish it; returns whether its manifest is published, too."""
    asked.out.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(data), PART_BYTES)):
        (asked.out / f"{number:03d}").write_bytes(data[start : start + PART_BYTES])
    (asked.out / DIGEST_FILE).write_text(digest)
    if asked.package is None or examined.manifest is None:
        return False
    owner = (asked.package, asked.uid, asked.namespace)
    objects = package_parts(*owner, data)
    objects.reverse()  # the first part last: where it is, all are
    manifest = package_manifest(*owner, digest, examined.manifest.to_json_bytes())
    published = len(manifest["binaryData"]["manifest"]) > SMALL_MANIFEST * 4 // 3
    if published:
        objects.insert(0, manifest)
    asyncio.run(_publish(objects, asked.namespace))
    return published


async def _publish(objects: Sequence[dict[str, Any]], namespace: str) -> None:
    import os

    from cloaca.store.kubernetes.api import Api
    from cloaca.store.kubernetes.config import KubernetesUrl, find_server

    api = Api(find_server(KubernetesUrl(), os.environ))
    try:
        for one in objects:
            with suppress(AlreadyExists):  # named by its content, and immutable
                await api.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", body=one)
    finally:
        await api.close()


if __name__ == "__main__":
    sys.exit(main())
