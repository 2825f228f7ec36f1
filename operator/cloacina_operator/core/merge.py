"""Merge a partial pod template over ours as Kubernetes merges a strategic patch. Pure; knows pod templates only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MERGE_KEYS: Mapping[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "volumes": "name",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
    "schedulingGates": "name",
}
"""Lists that are merged entry by entry, and what tells their entries apart, as in the Kubernetes API. Others, such as
tolerations, envFrom, args and command, are replaced whole."""

ONE_OF = frozenset({"volumes", "env"})
"""Lists whose entries are one of several things: an entry of the same name replaces ours whole."""

_DIRECTIVE = "$patch"


def merged(ours: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """``ours`` with ``patch`` over it: maps are merged, lists by their merge keys, null removes.

    ``$patch: replace`` in a map replaces ours whole, ``$patch: delete`` in an entry of a list removes it. Neither
    argument is changed.
    """
    if patch.get(_DIRECTIVE) == "replace":
        return {key: value for key, value in patch.items() if key != _DIRECTIVE}
    result = dict(ours)
    for key, value in patch.items():
        before = result.get(key)
        if key == _DIRECTIVE:
            continue
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            result[key] = merged(before if isinstance(before, Mapping) else {}, value)
        elif key in MERGE_KEYS and isinstance(value, list):
            result[key] = _merged_list(before if isinstance(before, list) else [], value, key)
        else:
            result[key] = value
    return result


def _merged_list(ours: list[Any], patch: list[Any], key: str) -> list[Any]:
    """Ours in our order, each with its patch; then what the patch adds, in its order."""
    by = MERGE_KEYS[key]
    patches = {entry.get(by): entry for entry in patch if isinstance(entry, Mapping)}
    result = []
    for entry in ours:
        change = patches.pop(entry.get(by), None)
        if change is None:
            result.append(entry)
        elif change.get(_DIRECTIVE) != "delete":
            result.append(dict(change) if key in ONE_OF else merged(entry, change))
    result += [
        {name: value for name, value in entry.items() if name != _DIRECTIVE}
        for entry in patches.values()
        if entry.get(_DIRECTIVE) != "delete"
    ]
    return result
