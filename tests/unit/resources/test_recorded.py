"""A run as its own process reads it, held to the types that everybody else reads: same fields, same values."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloaca.errors import Invalid
from cloaca.resources import Condition, ObjectMeta, RunSpec, RunStatus, TaskStatus, WorkflowRun
from cloaca.resources import recorded as light
from cloaca.resources.meta import PackageReference
from cloaca.resources.phases import ConditionStatus, RunPhase, TaskPhase
from cloaca.resources.recorded import RecordedCondition, RecordedRun, RecordedStatus, RecordedTask, read_run
from cloaca.resources.ref import moment_of, rfc3339
from cloaca.store.blocking import recorded

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
ZONES = st.sampled_from([timezone.utc, timezone(timedelta(hours=2)), timezone(-timedelta(hours=9, minutes=30))])
TIMES = st.datetimes(datetime(1970, 1, 2), datetime(9000, 1, 1), timezones=ZONES)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
CONTEXTS = st.dictionaries(TEXTS, JSON, max_size=3)
COUNTS = st.integers(0, 9)
TASKS = st.builds(
    TaskStatus,
    id=TEXTS,
    phase=st.sampled_from(TaskPhase),
    attempts=COUNTS,
    started_at=st.none() | TIMES,
    finished_at=st.none() | TIMES,
    message=st.none() | TEXTS,
)
CONDITIONS = st.builds(
    lambda **given: Condition(**given),  # else the alias of what is required would be given too
    type=TEXTS,
    status=st.sampled_from(ConditionStatus),
    reason=TEXTS,
    message=TEXTS,
    last_transition_time=TIMES,
    observed_generation=COUNTS,
)
STATUSES = st.builds(
    RunStatus,
    phase=st.sampled_from(RunPhase),
    tasks=st.lists(TASKS, max_size=3).map(tuple),
    checkpoint=st.dictionaries(TEXTS, CONTEXTS, max_size=2),
    context=st.none() | CONTEXTS,
    started_at=st.none() | TIMES,
    finished_at=st.none() | TIMES,
    attempt=COUNTS,
    failures=COUNTS,
    message=st.none() | TEXTS,
    traceback=st.none() | TEXTS,
    pod_name=st.none() | TEXTS,
    conditions=st.lists(CONDITIONS, max_size=3).map(tuple),
)
RUNS = st.builds(
    WorkflowRun,
    metadata=st.builds(ObjectMeta, name=NAMES, namespace=NAMES, uid=NAMES, resource_version=NAMES, generation=COUNTS),
    spec=st.builds(
        RunSpec,
        workflow=NAMES,
        package_ref=st.none() | st.builds(PackageReference, name=NAMES),
        context=CONTEXTS,
        cancel=st.booleans(),
        active_deadline_seconds=st.none() | st.integers(1, 9),
    ),
    status=STATUSES,
)

STATUS_FIELDS = {RunStatus: RecordedStatus, TaskStatus: RecordedTask, Condition: RecordedCondition}


def as_read(value: Any) -> Any:
    """A value of the types as the light reader has it."""
    kind = STATUS_FIELDS.get(type(value))
    if kind is not None:
        return kind(**{field: as_read(getattr(value, field)) for field in type(value).model_fields})
    return tuple(map(as_read, value)) if isinstance(value, tuple) else value


@given(RUNS)
def test_a_run_is_read_as_the_types_read_it(run: WorkflowRun) -> None:
    read = read_run(json.loads(run.model_dump_json(by_alias=True)))  # what is unset is null
    assert read == RecordedRun(
        name=run.name,
        namespace=run.metadata.namespace,
        uid=run.metadata.uid,
        version=run.metadata.resource_version,
        generation=run.metadata.generation,
        workflow=run.spec.workflow,
        context=run.spec.context,
        cancel=run.spec.cancel,
        active_deadline_seconds=run.spec.active_deadline_seconds,
        status=as_read(run.status),
    )
    assert read == read_run(run.to_json_dict())  # what is unset is not there
    assert read == recorded(run)
    assert read.ref == run.ref
    assert tuple(one.to_json_dict() for one in read.status.conditions) == tuple(
        one.to_json_dict() for one in run.status.conditions
    )


@pytest.mark.parametrize("kind", STATUS_FIELDS, ids=lambda kind: kind.__name__)
def test_every_field_of_a_status_is_known_with_its_default(kind: Any) -> None:
    read = STATUS_FIELDS[kind]
    assert {*read._fields} == {*kind.model_fields, "unknown"}
    for name, field in kind.model_fields.items():
        if not field.is_required():
            assert read._field_defaults[name] == as_read(field.get_default(call_default_factory=True)), name


def test_the_names_of_the_kind_are_those_of_its_type() -> None:
    assert (light.KIND, light.PLURAL) == (WorkflowRun.KIND, WorkflowRun.PLURAL)


def test_what_a_run_does_not_say_is_as_the_types_have_it() -> None:
    bare = {"metadata": {"name": "r", "uid": "u", "resourceVersion": "1"}, "spec": {"workflow": "w"}}
    assert read_run(bare) == recorded(WorkflowRun.model_validate(bare))


def test_what_a_newer_version_added_is_kept() -> None:
    document = {
        "metadata": {"name": "r", "uid": "u", "resourceVersion": "1", "managedFields": []},
        "spec": {"workflow": "w", "addedLater": 1},
        "status": {"tasks": [{"id": "a", "later": {"x": 1}}], "and": "more"},
    }
    status = read_run(document).status
    assert (status.unknown, status.tasks[0].unknown) == ({"and": "more"}, {"later": {"x": 1}})


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"phase": "Paused"}, "ValueError: 'Paused' is not a valid RunPhase"),
        ({"tasks": [{}]}, "KeyError: 'id'"),
        ({"startedAt": "soon"}, "ValueError: Invalid isoformat string: 'soon'"),
        ({"tasks": 3}, "TypeError: 'int' object is not iterable"),
        ("on its way", "ValueError: dictionary update sequence"),
        ({"startedAt": 3}, "AttributeError: 'int' object has no attribute 'partition'"),
    ],
    ids=["phase", "no id", "no time", "no list", "no object", "a number"],
)
def test_what_is_no_run_of_ours_says_so(status: object, said: str) -> None:
    document = {"metadata": {"name": "r", "uid": "u", "resourceVersion": "1"}, "spec": {"workflow": "w"}}
    with pytest.raises(Invalid, match="WorkflowRun default/r was stored by another version: ") as refused:
        read_run({**document, "status": status})
    assert said in str(refused.value)
    assert str(refused.value).endswith(": upgrade cloacina, or delete it")


@given(TIMES)
def test_a_time_that_we_wrote_is_read_as_it_was(moment: datetime) -> None:
    assert moment_of(rfc3339(moment)) == moment == moment_of(moment.isoformat())


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-28T09:00:00Z", datetime(2026, 3, 28, 9, tzinfo=timezone.utc)),
        ("2026-03-28T09:00:00z", datetime(2026, 3, 28, 9, tzinfo=timezone.utc)),
        ("2026-03-28T11:00:00+02:00", datetime(2026, 3, 28, 9, tzinfo=timezone.utc)),
        ("2026-03-28T09:00:00.5Z", datetime(2026, 3, 28, 9, 0, 0, 500_000, tzinfo=timezone.utc)),
        ("2026-03-28T09:00:00.123456789Z", datetime(2026, 3, 28, 9, 0, 0, 123_456, tzinfo=timezone.utc)),
    ],
)
def test_a_time_is_read_in_every_form_of_rfc_3339(text: str, moment: datetime) -> None:
    assert moment_of(text) == moment


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-03-28T09:00:00", "'2026-03-28T09:00:00' has no time zone"),
        ("", "Invalid isoformat string: ''"),
        ("2026-03-28T09:00:00.Z1", "Invalid isoformat string"),
    ],
)
def test_what_is_no_time_with_a_zone_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        moment_of(text)
