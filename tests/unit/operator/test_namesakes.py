"""Names that become one: which package has the object, and what the other one says."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from cloacina_operator.core.folder import ArchiveFile
from cloacina_operator.core.namesakes import apart
from cloacina_operator.core.packages import Accepted, Fetched, ObservedPackage, PollerState, TakenName, plan
from cloacina_operator.core.plan import CreateTrigger
from cloacina_operator.shell.index import Index

from cloaca.resources import CloacinaPackage, ObjectMeta, PackageSpec, Trigger, TriggerSpec
from cloaca.resources.conditions import find
from cloaca.resources.names import FOLDER, FOLDER_LABEL, second_package_name
from cloaca.resources.package import ActivePackage, PackageSource, PackageStatus, TriggerEntry
from cloaca.resources.trigger import PackageReference
from cloaca.store.base import Change
from cloaca.store.sql.store import SqlStore

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
OLD, NEW = "sha256:" + "1" * 64, "sha256:" + "2" * 64
SECOND = second_package_name("data_ingest")


def archive_of(package: str | None, path: str | None = None) -> ArchiveFile:
    path = path or f"/p/{package}-1.0.0.cloacina"
    return ArchiveFile(path=path, url=f"file://{path}", digest=NEW, package=package, version="1.0.0")


def package(
    name: str = "data-ingest", *, active: str | None = None, folder: bool = True, **status: Any
) -> CloacinaPackage:
    before = None if active is None else ActivePackage(digest=OLD, name=active, version="1.0.0", since=NOW)
    return CloacinaPackage(
        metadata=ObjectMeta(name=name, uid="u", labels={FOLDER_LABEL: FOLDER} if folder else {}),
        spec=PackageSpec(source=PackageSource(url=f"file:///p/{active or name}-1.0.0.cloacina")),
        status=PackageStatus(active=before, **status),
    )


@pytest.mark.parametrize(
    ("files", "existing", "named"),
    [
        pytest.param(["data_ingest"], [], ["data_ingest"], id="alone"),
        pytest.param(["data-ingest", "other"], [], ["data-ingest", "other"], id="nothing in common"),
        pytest.param(["data_ingest", "data-ingest"], [], [SECOND, "data-ingest"], id="the name without a change wins"),
        pytest.param(
            ["data_ingest", "data-ingest"],
            [package(active="data_ingest")],
            ["data_ingest", second_package_name("data-ingest")],
            id="the active one keeps it",
        ),
        pytest.param(
            [None, "data-ingest"],
            [package(active="data_ingest")],
            [None, second_package_name("data-ingest")],
            id="the active one keeps it while its file cannot be read",
        ),
        pytest.param(["data-ingest"], [package(active="data_ingest")], ["data-ingest"], id="the active one is gone"),
    ],
)
def test_one_of_two_packages_has_the_object(
    files: list[str | None], existing: list[CloacinaPackage], named: list[str | None]
) -> None:
    seen = [archive_of(name) if name else archive_of(None, "/p/data_ingest-1.0.0.cloacina") for name in files]
    assert [file.package for file in apart(seen, existing)] == named


def observed(package: CloacinaPackage, accepted: str, **more: Any) -> ObservedPackage:
    verdict = Accepted(name=accepted, version="1.0.0", workflows=(), tasks=(), triggers=())
    given: dict[str, Any] = {"fetch": Fetched(digest=NEW), "verdict": verdict, "polled": frozenset(), "poller": None}
    return ObservedPackage(package=package, now=NOW, **{**given, **more})


@pytest.mark.parametrize(
    ("present", "accepted", "both"),
    [
        pytest.param(package(SECOND), "data_ingest", ("'data_ingest'", "'data-ingest'"), id="the folder's second one"),
        pytest.param(
            package(active="data_ingest", folder=False),
            "data-ingest",
            ("'data_ingest'", "'data-ingest'"),
            id="deployed over one of another name",
        ),
        pytest.param(package(active="data_ingest", folder=False), "data_ingest", None, id="a new version"),
        pytest.param(package("mine", active="one", folder=False), "other", None, id="an object that a person named"),
        pytest.param(package(active="data_ingest"), "data-ingest", None, id="the folder has the other one no more"),
    ],
)
def test_a_package_takes_no_other_ones_place(
    present: CloacinaPackage, accepted: str, both: tuple[str, str] | None
) -> None:
    status = plan(observed(present, accepted, namesake="data-ingest")).status
    agreed = find(status.conditions, "Agreed")
    stalled = find(status.conditions, "Stalled")
    assert agreed is not None
    if both is None:
        assert status.active is not None
        assert (agreed.status.value, status.active.name, status.active.digest) == ("True", accepted, NEW)
        return
    assert (agreed.status.value, agreed.reason) == ("False", "PackageNameTaken")
    assert all(name in agreed.message for name in both)
    assert status.active == present.status.active
    assert stalled is not None
    assert stalled.reason == "PackageNameTaken"


ENTRIES = tuple(TriggerEntry(name=name, workflow="w", poll_interval="5s") for name in ("inbox", "outbox"))


def test_a_trigger_whose_object_is_another_packages_is_said_and_the_others_are_made() -> None:
    taken = TakenName(object="data-ingest-inbox", package="data", function="ingest_inbox")
    present = package(active="data-ingest", triggers=ENTRIES)
    present = present.model_copy(
        update={
            "status": present.status.model_copy(update={"active": ActivePackage(digest=NEW, version="1", since=NOW)})
        }
    )
    look = observed(present, "data-ingest", taken=(taken,), poller=PollerState(digest=NEW))
    decided = plan(look)
    ready = find(decided.status.conditions, "Ready")
    assert ready is not None
    assert (ready.status.value, ready.reason) == ("False", "TriggerNameTaken")
    for name in ("'inbox'", "'data-ingest'", "'data-ingest-inbox'", "'ingest_inbox'", "'data'"):
        assert name in ready.message
    assert [it.trigger.spec.name for it in decided.actions if isinstance(it, CreateTrigger)] == ["outbox"]
    after = plan(observed(present, "data-ingest", poller=PollerState(digest=NEW)))  # when the other one is gone
    ready = find(after.status.conditions, "Ready")
    assert ready is not None
    assert ready.status.value == "True"
    assert find(after.status.conditions, "Stalled") is None


async def test_a_package_is_looked_at_when_a_trigger_of_a_name_that_it_needs_comes_or_goes() -> None:
    store = await SqlStore.open(":memory:")
    index = Index(store)
    await index.load()
    waiting = package(active="data-ingest", triggers=ENTRIES)
    assert index.taken_names(waiting) == ()
    other = await store.create(
        Trigger(
            metadata=ObjectMeta(name="data-ingest-inbox"),
            spec=TriggerSpec(package_ref=PackageReference(name="data"), name="ingest_inbox"),
        )
    )
    assert waiting.ref in await index.saw(Change(ref=other.ref))
    assert index.taken_names(waiting) == (
        TakenName(object="data-ingest-inbox", package="data", function="ingest_inbox"),
    )
    await store.delete(other.ref)
    assert waiting.ref in await index.saw(Change(ref=other.ref, deleted=True))
    assert index.taken_names(waiting) == ()
    await store.close()
