"""A podTemplate is merged as Kubernetes merges a strategic patch."""

from typing import Any

import pytest
from cloacina_operator.core.merge import merged

MAIN = {"name": "main", "env": [{"name": "HOME", "value": "/tmp"}], "args": ["poll"]}


@pytest.mark.parametrize(
    ("ours", "patch", "expected"),
    [
        pytest.param({"a": 1}, {}, {"a": 1}, id="nothing"),
        pytest.param({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}, id="maps are merged"),
        pytest.param({"a": 1, "b": 2}, {"a": None}, {"b": 2}, id="null removes"),
        pytest.param({"a": {"b": 1}}, {"a": {"$patch": "replace", "c": 2}}, {"a": {"c": 2}}, id="replace a map"),
        pytest.param(
            {"containers": [MAIN]},
            {"containers": [{"name": "main", "env": [{"name": "A", "value": "1"}]}, {"name": "sidecar"}]},
            {
                "containers": [
                    {**MAIN, "env": [{"name": "HOME", "value": "/tmp"}, {"name": "A", "value": "1"}]},
                    {"name": "sidecar"},
                ]
            },
            id="containers by name, env by name",
        ),
        pytest.param(
            {"env": [{"name": "A", "value": "1"}]},
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
            id="a variable from a Secret replaces a plain value whole",
        ),
        pytest.param(
            {"volumes": [{"name": "tmp", "emptyDir": {}}]},
            {"volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}, {"name": "d", "hostPath": {}}]},
            {"volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}, {"name": "d", "hostPath": {}}]},
            id="volumes by name",
        ),
        pytest.param(
            {"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]},
            {"volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}, {"name": "tmp", "mountPath": "/var"}]},
            {"volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}, {"name": "tmp", "mountPath": "/var"}]},
            id="mounts by path, not by name",
        ),
        pytest.param(
            {"tolerations": [{"key": "a"}], "args": ["x"]},
            {"tolerations": [{"key": "b"}], "args": ["y", "z"]},
            {"tolerations": [{"key": "b"}], "args": ["y", "z"]},
            id="tolerations and args have no merge key and are replaced",
        ),
        pytest.param(
            {"env": [{"name": "A"}, {"name": "B"}]},
            {"env": [{"name": "A", "$patch": "delete"}, {"name": "C", "$patch": "delete"}]},
            {"env": [{"name": "B"}]},
            id="delete an entry, there or not",
        ),
    ],
)
def test_merged(ours: dict[str, Any], patch: dict[str, Any], expected: dict[str, Any]) -> None:
    before = repr((ours, patch))

    assert merged(ours, patch) == expected
    assert repr((ours, patch)) == before, "neither argument is changed"
