"""Objects as rows and back, and what is refused."""

from __future__ import annotations

import math

import pytest

from cloaca.errors import Invalid
from cloaca.resources import ObjectMeta, OwnerReference, RunPhase, RunSpec, TaskStatus, WorkflowRun
from cloaca.store.sql.rows import Row, check, from_row, metadata_columns, same_json, spec_json, status_json, written


def run(**metadata: object) -> WorkflowRun:
    return WorkflowRun(metadata=ObjectMeta(**{"name": "run", **metadata}), spec=RunSpec(workflow="w"))


def row(obj: WorkflowRun, **changes: object) -> Row:
    values = {
        "uid": "u-1",
        "namespace": "default",
        "name": "run",
        "resource_version": 7,
        "generation": 1,
        "created": "2026-03-28T09:00:00.000000Z",
        **metadata_columns(obj),
        "spec": spec_json(obj),
        "status": status_json(obj),
    }
    return Row(**{**values, **changes})  # type: ignore[arg-type]  # a table of columns


def test_an_object_comes_back_as_it_went_in() -> None:
    owner = OwnerReference(kind="Trigger", name="t", uid="t-1")
    given = run(
        labels={"b": "2", "a": "1"}, annotations={"note": 'quotes " and \\ and ü and \u2028'}, owner_references=(owner,)
    ).with_status(phase=RunPhase.RUNNING, tasks=(TaskStatus(id="first"),), message="a\nb")
    back = from_row(WorkflowRun, row(given))
    assert back == given.with_metadata(
        uid="u-1", resource_version="7", generation=1, creation_timestamp=back.metadata.creation_timestamp
    )
    assert row(back) == row(given)


NEWER = Row(
    **{
        **row(run())._asdict(),
        "spec": '{"workflow":"w","fresh":{"a":[1]}}',
        "status": '{"phase":"Running","tasks":[{"id":"a","weight":2},{"id":"b"}],"mood":"good"}',
    }
)


def test_fields_of_a_newer_version_are_read_over_and_written_back() -> None:
    seen = from_row(WorkflowRun, NEWER)
    assert (seen.spec.workflow, seen.status.phase) == ("w", RunPhase.RUNNING)
    changed = seen.with_spec(cancel=True).with_status(attempt=1)
    assert same_json(
        spec_json(changed), '{"workflow":"w","context":{},"cancel":true,"backoffLimit":3,"fresh":{"a":[1]}}'
    )
    assert same_json(
        status_json(changed),
        '{"phase":"Running","tasks":[{"id":"a","phase":"Pending","attempts":0,"weight":2},'
        '{"id":"b","phase":"Pending","attempts":0}],"checkpoint":{},"attempt":1,"failures":0,"conditions":[],"observedGeneration":0,'
        '"mood":"good"}',
    )


def test_a_value_that_no_version_of_ours_knows_names_the_object_and_the_field() -> None:
    with pytest.raises(Invalid, match=r"WorkflowRun default/run .* status\.phase: .*: upgrade cloacina"):
        from_row(WorkflowRun, row(run(), status='{"phase":"Dreaming"}'))


@pytest.mark.parametrize(
    ("context", "words"),
    [
        pytest.param({"a": [1.0, math.nan]}, r"spec\.context\.a\[1\] is nan", id="nan"),
        pytest.param({"a": {"b": -math.inf}}, r"spec\.context\.a\.b is -inf", id="infinity"),
        pytest.param({"a": "\udcff"}, r"spec: .*surrogates", id="half a character"),
        pytest.param({"a": object()}, r"spec: .*object", id="no JSON"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_path(context: dict[str, object], words: str) -> None:
    obj = run().with_spec(context=context)
    with pytest.raises(Invalid, match=rf"WorkflowRun default/run: {words}"):
        spec_json(obj)


@pytest.mark.parametrize("context", [{"a": None}, {"a": "null"}, {"null": [None, {"b": None}]}])
def test_null_is_a_value(context: dict[str, object]) -> None:
    obj = run().with_spec(context=context)
    assert from_row(WorkflowRun, row(obj)).spec.context == context


def test_after_a_status_the_rest_is_what_is_stored_not_what_the_caller_holds() -> None:
    seen = from_row(WorkflowRun, row(run()))
    stored = row(seen.with_status(attempt=1), resource_version=8)
    assert written(seen.with_status(attempt=1), stored) == from_row(WorkflowRun, stored)
    assert written(seen.with_status(attempt=1).with_spec(cancel=True), stored) == from_row(WorkflowRun, stored)
    assert written(seen.with_status(attempt=1).with_metadata(labels={"a": "b"}), stored) == from_row(
        WorkflowRun, stored
    )


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('{"a":1,"b":2}', '{"b": 2, "a": 1}', True),
        ("[1,2]", "[2,1]", False),
        ("1", "1.0", False),
        ("1", "true", False),
        ('{"a":null}', "{}", False),
    ],
)
def test_same_json_looks_past_order_and_spaces_only(one: str, other: str, same: bool) -> None:
    assert same_json(one, other) is same


@pytest.mark.parametrize(
    "metadata",
    [
        {"name": "a"},
        {"name": "0"},
        {"name": "a-b.c-d.e"},
        {"name": "a" * 253},
        {"namespace": "a" * 63},
        {"labels": {"a": "", "A.b_c-d": "x" * 63, "example.com/" + "n" * 63: "A_.-z", "d" * 253 + "/a": "v"}},
        {"annotations": {"example.com/note": "anything: \n even this"}},
    ],
    ids=str,
)
def test_what_kubernetes_takes_is_taken(metadata: dict[str, object]) -> None:
    check(run(**metadata))


@pytest.mark.parametrize(
    ("metadata", "path"),
    [
        ({"name": ""}, "metadata.name"),
        ({"name": "a" * 254}, "metadata.name"),
        ({"name": "-a"}, "metadata.name"),
        ({"name": "a..b"}, "metadata.name"),
        ({"name": "a.-b"}, "metadata.name"),
        ({"name": "a_b"}, "metadata.name"),
        ({"name": "a\n"}, "metadata.name"),
        ({"name": 'a"b'}, "metadata.name"),
        ({"namespace": ""}, "metadata.namespace"),
        ({"namespace": "a.b"}, "metadata.namespace"),
        ({"namespace": "a" * 64}, "metadata.namespace"),
        ({"labels": {"": "x"}}, "metadata.labels: the key ''"),
        ({"labels": {"a/b/c": "x"}}, "metadata.labels: the key 'a/b/c'"),
        ({"labels": {"a..b/c": "x"}}, "metadata.labels: the key 'a..b/c'"),
        ({"labels": {"d" * 254 + "/a": "x"}}, "metadata.labels: the key 'd"),
        ({"labels": {"n" * 64: "x"}}, "metadata.labels: the key 'n"),
        ({"labels": {"a": "x" * 64}}, "metadata.labels.a: 'x"),
        ({"labels": {"a": "-x"}}, "metadata.labels.a: '-x'"),
        ({"annotations": {"bad key": "x"}}, "metadata.annotations: the key 'bad key'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_kubernetes_refuses_is_refused_with_its_path(metadata: dict[str, object], path: str) -> None:
    with pytest.raises(Invalid) as refused:
        check(run(**metadata))
    assert f": {path}" in str(refused.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        check(run(name="A", namespace="B", labels={"?": "x", "ok": "!"}, annotations={"?": "x"}))
    assert str(refused.value).count("metadata.") == 5
