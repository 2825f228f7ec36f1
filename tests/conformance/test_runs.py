"""What every store promises to the process of a run, in the words of its protocol (cloaca/store/runs.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import hostile
import pytest

from cloaca.errors import Conflict, NotFound
from cloaca.failure import failure_of, plain_text
from cloaca.resources import ObjectMeta, RunSpec, RunStatus, WorkflowRun
from cloaca.resources.meta import PackageReference
from cloaca.resources.phases import RunPhase
from cloaca.resources.recorded import RecordedRun
from cloaca.store import RunStore, Store
from cloaca.store.blocking import blocking, recorded
from cloaca.store.kubernetes.direct import Direct
from cloaca.store.kubernetes.runs import KubernetesRuns
from cloaca.store.kubernetes.store import KubernetesStore
from cloaca.store.sql.rows import status_json

RUN = WorkflowRun(
    metadata=ObjectMeta(name="nightly", namespace="one"),
    spec=RunSpec(
        package_ref=PackageReference(name="demo"),
        workflow="demo",
        context={"file": "a.parquet", "n": [1, {"deep": None}]},
        active_deadline_seconds=60,
    ),
)
RUNNING = RunStatus(phase=RunPhase.RUNNING, attempt=1, checkpoint={"a": {"n": None}}, pod_name="nightly-abcde")


@pytest.fixture(params=["its own way", "over its loop"])
async def runs(store: Store, request: pytest.FixtureRequest) -> AsyncIterator[RunStore]:
    """The store as the process of a run has it."""
    loop = asyncio.get_running_loop()
    if request.param == "over its loop":
        yield blocking(_Plain(store), loop)
    elif isinstance(store, KubernetesStore):
        own = KubernetesRuns(Direct(store.api.server))
        yield own
        own.close_here()
    else:
        yield blocking(store, loop)


class _Plain:
    """The protocol of a store, and nothing else that it can do."""

    def __init__(self, store: Store) -> None:
        self.get = store.get
        self.write_status = store.write_status


async def record(runs: RunStore, run: RecordedRun, status: RunStatus) -> str:
    text = status_json(RUN.model_copy(update={"status": status}))
    return await asyncio.to_thread(runs.record_here, run.ref, run.uid, run.version, text)


async def seen(runs: RunStore) -> RecordedRun:
    run = await asyncio.to_thread(runs.run_here, "nightly", "one")
    assert run is not None
    return run


async def test_a_run_is_read_as_it_stands(store: Store, runs: RunStore) -> None:
    await store.create(RUN)
    made = await store.write_status((await store.update(await standing(store))).with_status(**dict(RUNNING)))
    assert await asyncio.to_thread(runs.run_here, "nightly", "one") == recorded(made)


async def standing(store: Store, version: str | None = None) -> WorkflowRun:
    """The run; with ``version``, once the store has heard of that: what is recorded past it reaches a cache later."""
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        run = await store.get(WorkflowRun, "nightly", "one")
        assert run is not None
        if version is None or run.metadata.resource_version == version:
            return run
        assert asyncio.get_running_loop().time() < deadline, f"still at {run.metadata.resource_version}, not {version}"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", ["nightly", "../nightly", "a/b", ""])
async def test_a_run_that_is_not_there_is_none(store: Store, runs: RunStore, name: str) -> None:
    assert await asyncio.to_thread(runs.run_here, name, "one") is None


async def test_a_status_is_recorded_and_nothing_else_changes(store: Store, runs: RunStore) -> None:
    made = await store.create(RUN)
    version = await record(runs, await seen(runs), RUNNING)
    found = await standing(store, version)
    assert found == made.model_copy(
        update={"status": RUNNING, "metadata": made.metadata.model_copy(update={"resource_version": version})}
    )
    assert version != made.metadata.resource_version


async def test_who_records_gets_the_version_at_which_it_may_record_next(store: Store, runs: RunStore) -> None:
    await store.create(RUN)
    run = await seen(runs)
    for attempts in range(3):
        run = run._replace(version=await record(runs, run, RUNNING.model_copy(update={"failures": attempts})))
    assert (await standing(store, run.version)).status.failures == 2


async def test_what_changed_since_it_was_read_is_not_written_over(store: Store, runs: RunStore) -> None:
    await store.create(RUN)
    run = await seen(runs)
    changed = await store.update((await standing(store)).with_spec(cancel=True))
    with pytest.raises(Conflict, match="WorkflowRun one/nightly changed since it was read: look again"):
        await record(runs, run, RUNNING)
    assert await standing(store) == changed
    assert (await seen(runs)).cancel is True


@pytest.mark.parametrize("another", [False, True], ids=["gone", "another one of that name"])
async def test_a_run_that_is_gone_is_not_recorded(store: Store, runs: RunStore, another: bool) -> None:
    await store.create(RUN)
    run = await seen(runs)
    await store.delete(RUN.ref)
    made = await store.create(RUN) if another else None
    with pytest.raises(NotFound, match="WorkflowRun one/nightly is gone"):
        await record(runs, run, RUNNING)
    assert await store.get(WorkflowRun, "nightly", "one") == made


@pytest.mark.parametrize("text", ["a\x00b", "caf\u00e9 \U0001f600", "\u2028\x1b[0m\x7f", "\ufffe\uffff"], ids=ascii)
async def test_every_text_that_a_context_may_hold_is_kept(store: Store, text: str) -> None:
    """NUL too, which PostgreSQL has no place for in a text of its own."""
    context = {text: [text, {"deep": text}]}
    spec = RUN.spec.model_copy(update={"context": context, "key": text})
    made = await store.create(RUN.model_copy(update={"spec": spec}))
    status = RUNNING.model_copy(update={"checkpoint": {"a": context}, "message": plain_text(text, 100)})
    await store.write_status(made.model_copy(update={"status": status}))

    read = await store.get(WorkflowRun, "nightly", "one")
    assert read is not None
    assert (read.spec.context, read.spec.key, read.status) == (context, text, status)


async def test_whatever_user_code_raises_can_be_kept(store: Store) -> None:
    made = await store.create(RUN)
    for kind in hostile.EXCEPTIONS:
        try:
            raise hostile.exception(kind)
        except BaseException as error:
            failure = failure_of(error)
        status = RUNNING.model_copy(update={"message": failure.message, "traceback": failure.traceback})
        made = await store.write_status(made.model_copy(update={"status": status}))
        assert (await store.get(WorkflowRun, "nightly", "one") or RUN).status == status, kind
