"""A record's JSON says what its status says."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cloaca.engine.record import Kept, Record, TaskRecord
from cloaca.resources.conditions import RunCondition, RunReason, set_condition
from cloaca.resources.run import RunPhase, RunStatus, TaskPhase, TaskStatus

NOW = datetime(2026, 3, 28, 9, tzinfo=timezone.utc)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(timezone(timedelta(hours=2))))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
CONTEXTS = st.dictionaries(TEXTS, JSON, max_size=3)


@st.composite
def task_records(draw: Any) -> TaskRecord:
    record = TaskRecord(draw(TEXTS))
    record.change(
        phase=draw(st.sampled_from(TaskPhase)),
        attempts=draw(st.integers(0, 5)),
        started_at=draw(st.none() | TIMES),
        finished_at=draw(st.none() | TIMES),
        message=draw(st.none() | TEXTS),
    )
    return record


@st.composite
def records(draw: Any) -> Record:
    return Record(
        recorded=RunStatus(attempt=draw(st.integers(0, 5)), failures=draw(st.integers(0, 5)), pod_name=draw(TEXTS)),
        phase=draw(st.sampled_from(RunPhase)),
        tasks=tuple(draw(st.lists(task_records(), max_size=3))),
        checkpoint={
            task: Kept(context) for task, context in draw(st.dictionaries(TEXTS, CONTEXTS, max_size=2)).items()
        },
        context=draw(st.none() | CONTEXTS.map(Kept)),
        started_at=draw(TIMES),
        finished_at=draw(st.none() | TIMES),
        message=draw(st.none() | TEXTS),
        traceback=draw(st.none() | TEXTS),
    )


@given(records())
def test_the_text_is_what_the_status_would_be_written_as(record: Record) -> None:
    text = record.text
    assert text is not None
    written = record.status.model_dump_json(by_alias=True, exclude_none=True)
    assert json.loads(text) == json.loads(written)
    assert list(json.loads(text)) == list(json.loads(written))
    assert RunStatus.model_validate_json(text) == record.status


def test_a_task_that_changed_is_written_as_it_is_then() -> None:
    record = TaskRecord("load", TaskStatus(id="load", phase=TaskPhase.RUNNING, attempts=1))
    before = record.text
    record.change(phase=TaskPhase.COMPLETED, finished_at=NOW)

    assert before == '{"id":"load","phase":"Running","attempts":1}'
    assert TaskStatus.model_validate_json(record.text) == record.status
    assert record.status.phase is TaskPhase.COMPLETED


def test_what_only_the_store_can_write_has_no_text() -> None:
    conditions = set_condition((), RunCondition.STARTED, True, RunReason.STARTED, "attempt 1", NOW, 1)
    unknown = RunStatus.model_validate({"addedLater": 1}, extra="allow")
    for recorded in (RunStatus(conditions=conditions), unknown):
        record = Record(
            recorded=recorded,
            phase=RunPhase.RUNNING,
            tasks=(),
            checkpoint={},
            context=None,
            started_at=NOW,
            finished_at=None,
            message=None,
            traceback=None,
        )
        assert record.text is None
        assert record.status.conditions == recorded.conditions
