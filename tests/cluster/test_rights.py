"""How the rights that roles grant are compared with what was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cluster import rights
from cluster.control_plane import Asked
from cluster.rights import Right

ROLE = {
    "kind": "ClusterRole",
    "metadata": {"name": "release-run"},
    "rules": [
        {"apiGroups": ["cloacina.io"], "resources": ["workflowruns"], "verbs": ["get", "list", "delete"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
    ],
}
RUNS = "/apis/cloacina.io/v1alpha1/namespaces/team/workflowruns"


def asked(verb: str, resource: str, path: str, code: int = 200) -> Asked:
    return Asked(verb, resource, "", code, path)


def noted(folder: Path, monkeypatch: pytest.MonkeyPatch, *requests: Asked) -> None:
    monkeypatch.setenv(rights.FOLDER, str(folder))
    for name in rights.files_that_note():
        rights.note(Path(name), rights.granted([ROLE], "release"), {"run": rights.used(requests)})


def test_what_is_granted_and_not_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = asked("list", "workflowruns", f"{RUNS}?limit=1")
    refused = asked("delete", "workflowruns", f"{RUNS}/a", code=403)
    events = asked("get", "configmaps", "/apis/elsewhere.io/v1/configmaps/a")  # of another group
    noted(tmp_path, monkeypatch, listed, refused, events)
    assert rights.judged(tmp_path, part=False) == ["run: get configmaps"], (
        "delete of runs stands in the list of reasons"
    )
    assert Right("cloacina.io", "workflowruns", "delete") in rights.UNUSED_ON_PURPOSE


def test_where_all_is_used_there_is_nothing_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = (
        asked("list", "workflowruns", RUNS),
        asked("get", "configmaps", "/api/v1/namespaces/team/configmaps/a"),
    )
    noted(tmp_path, monkeypatch, *requests)
    assert rights.judged(tmp_path, part=False) == []


def test_a_part_of_the_tests_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted(tmp_path, monkeypatch)
    assert rights.judged(tmp_path, part=False)
    assert rights.judged(tmp_path, part=True) == []
    for path in tmp_path.glob("*.json"):
        if json.loads(path.read_text())["file"] == "test_operator.py":
            path.unlink()
    assert rights.judged(tmp_path, part=False) == []
