"""An object that cannot be read is left out, logged once, and ends nothing."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from cloaca.errors import StoreUnavailable, Unreadable
from cloaca.resources import ObjectMeta, Ref, WorkflowRun
from cloaca.resources.run import RunSpec
from cloaca.store.kubernetes.documents import DEPTH, parsed
from cloaca.store.oddities import Oddities, Oddity, Stage
from cloaca.store.reading import read, readable

ODD = {
    "a phase of a later version": {"status": {"phase": "Hibernating"}},
    "a year that Python cannot hold": {"status": {"startedAt": "0000-01-01T00:00:00Z"}},
    "an offset that no place has": {"status": {"startedAt": "2026-01-01T00:00:00+99:99"}},
    "a context that is too deep": {"spec": {"workflow": "w", "context": json.loads('{"a":' * 300 + "1" + "}" * 300)}},
}


def text(name: str, **parts: Any) -> bytes:
    document = {"metadata": {"name": name, "namespace": "default", "uid": f"u-{name}"}, "spec": {"workflow": "w"}}
    return json.dumps({**document, **parts}).encode()


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_the_others_are_read(odd: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    oddities, told = Oddities(), []
    oddities.told = told.append
    for _ in range(3):
        found = list(readable(WorkflowRun, [text("a"), text("b", **odd), text("c")], oddities))
        assert [run.name for run in found] == ["a", "c"]
    ref = Ref(WorkflowRun.KIND, "default", "b")
    assert [(oddity.ref, oddity.uid) for oddity in told] == [(ref, "u-b")]
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    assert oddities.count_by_kind() == {WorkflowRun.KIND: 1}
    assert oddities.unreadable(ref)
    with pytest.raises(Unreadable, match="default/b"):
        read(WorkflowRun, text("b", **odd), oddities)

    read(WorkflowRun, text("b"), oddities)  # it was corrected

    assert not oddities


def test_whatever_is_raised_about_an_object_goes_no_further() -> None:
    oddities, ref = Oddities(), Ref("Job", "team", "odd")
    with oddities.guard(ref, Stage.WATCH, "u", "batch/v1"):
        int("x")
    assert oddities.count_by_kind() == {"Job": 1}
    with oddities.guard(ref, Stage.WATCH, "u", "batch/v1"):
        pass
    assert not oddities
    with pytest.raises(StoreUnavailable), oddities.guard(ref, Stage.WATCH):
        raise StoreUnavailable("away")


def test_what_is_forgotten_is_bounded() -> None:
    oddities = Oddities()
    for number in range(10_050):
        oddities.note(Oddity(ref=Ref("Job", "team", str(number)), uid="u", message="odd"))
    assert oddities.count_by_kind() == {"Job": 10_000}


@pytest.mark.parametrize("depth", [DEPTH - 10, DEPTH, DEPTH + 1, 9_000])
def test_an_answer_with_one_deep_object_is_parsed(depth: int) -> None:
    deep = '{"a":[' * (depth // 2) + '"]}{[\\""' + "]}" * (depth // 2)
    answer = parsed(f'{{"items":[{{"name":"odd","spec":{deep}}},{{"name":"good"}}]}}'.encode())
    assert [item["name"] for item in answer["items"]] == ["odd", "good"]


def test_a_namespace_is_set_aside_until_it_is_followed() -> None:
    oddities, path = Oddities(), "/apis/batch/v1/namespaces/team/jobs"
    oddities.set_aside(path, "no")
    assert oddities.namespaces_set_aside() == {"team"}
    oddities.followed(path)
    assert oddities.namespaces_set_aside() == frozenset()


def test_a_run_is_whole() -> None:
    run = WorkflowRun(metadata=ObjectMeta(name="a"), spec=RunSpec(workflow="w"))
    assert list(readable(WorkflowRun, [json.dumps(run.to_json_dict())], Oddities())) == [run]
