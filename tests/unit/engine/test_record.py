"""A record's JSON says what its status says."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cloaca.engine.record import Kept, Record, TaskRecord
from cloaca.resources.phases import ConditionStatus, RunPhase, TaskPhase
from cloaca.resources.recorded import RecordedCondition, RecordedStatus, RecordedTask, read_status
from cloaca.resources.run import RunStatus

NOW = datetime(2026, 3, 28, 9, tzinfo=timezone.utc)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(timezone(timedelta(hours=2))))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
CONTEXTS = st.dictionaries(TEXTS, JSON, max_size=3)


UNKNOWN = st.dictionaries(st.sampled_from(("addedLater", "andMore")), JSON, max_size=2)


@st.composite
def task_records(draw: Any) -> TaskRecord:
    record = TaskRecord("", RecordedTask(draw(TEXTS), unknown=draw(UNKNOWN)))
    record.change(
        id=draw(TEXTS),
        phase=draw(st.sampled_from(TaskPhase)),
        attempts=draw(st.integers(0, 5)),
        started_at=draw(st.none() | TIMES),
        finished_at=draw(st.none() | TIMES),
        message=draw(st.none() | TEXTS),
    )
    return record


CONDITIONS = st.builds(
    RecordedCondition,
    type=TEXTS,
    status=st.sampled_from(ConditionStatus),
    reason=TEXTS,
    last_transition_time=TIMES,
    message=TEXTS,
    observed_generation=st.integers(0, 5),
    unknown=UNKNOWN,
)


@st.composite
def records(draw: Any) -> Record:
    return Record(
        recorded=RecordedStatus(
            attempt=draw(st.integers(0, 5)),
            failures=draw(st.integers(0, 5)),
            pod_name=draw(st.none() | TEXTS),
            conditions=tuple(draw(st.lists(CONDITIONS, max_size=2))),
            unknown=draw(UNKNOWN),
        ),
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
def test_the_text_is_read_as_the_status_that_it_was_made_of(record: Record) -> None:
    assert read_status(json.loads(record.text())) == record.status


@given(records())
def test_the_text_is_what_the_type_of_the_status_would_be_written_as(record: Record) -> None:
    known = record._replace(recorded=record.recorded._replace(unknown={}, conditions=()))
    known = known._replace(tasks=tuple(TaskRecord(task.id, task.status._replace(unknown={})) for task in record.tasks))
    written = RunStatus.model_validate_json(known.text()).model_dump_json(by_alias=True, exclude_none=True)
    assert json.loads(known.text()) == json.loads(written)
    assert list(json.loads(known.text())) == list(json.loads(written))


@given(records())
def test_conditions_that_are_given_are_written_instead_of_those_that_were_recorded(record: Record) -> None:
    ready = RecordedCondition("Ready", ConditionStatus.TRUE, "Completed", NOW)
    assert read_status(json.loads(record.text((ready,)))) == record.status._replace(conditions=(ready,))


def test_a_task_that_changed_is_written_as_it_is_then() -> None:
    record = TaskRecord("load", RecordedTask(id="load", phase=TaskPhase.RUNNING, attempts=1))
    before = record.text
    record.change(phase=TaskPhase.COMPLETED, finished_at=NOW)

    assert before == '{"id":"load","phase":"Running","attempts":1}'
    assert read_status({"tasks": [json.loads(record.text)]}).tasks == (record.status,)
    assert record.status.phase is TaskPhase.COMPLETED
