"""Generate objects from the schemas of our CRDs, and workloads that pretend to be ours. Applies nothing."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from cloaca.resources import STORED_KINDS, Resource
from cloaca.resources.crds import object_schema
from cloaca.resources.names import (
    ATTEMPT_ANNOTATION,
    COMPONENT_LABEL,
    DIGEST_ANNOTATION,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    PACKAGE_LABEL,
    RUN_LABEL,
)
from cloaca.resources.ref import API_VERSION

Object = dict[str, Any]
Strategy = st.SearchStrategy[Any]

PACKAGE = "demo"  # which a poller polls
_NAMES = st.sampled_from([PACKAGE, "inbox", "a", "b-1", "x" * 52]) | st.from_regex(r"[a-z]{1,8}", fullmatch=True)
_UIDS = st.uuids().map(str)
_TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=40)
_DATES = st.sampled_from(
    ["0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-06-30T23:59:60Z",
     "2999-12-31T23:59:59Z", "1000-01-01T00:00:00+14:00", "2026-01-01T00:00:00+99:99", "2026-02-30T00:00:00Z",
     "2026-01-01T00:00:00.123456789Z"]
)  # fmt: skip
_SPANS = st.sampled_from(["1h30m", "1.5h", "100ms", "0h0m0.1s", "999999h", "60s"])
_ODD_SPANS = st.sampled_from(["0s", "999999999h", "1ns", "999999999h999999999h"])
_LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | _TEXTS
_JSON = st.dictionaries(_TEXTS, st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=5),
                        max_size=3)  # fmt: skip
_DEEP = st.sampled_from([50, 250, 1500, 5000]).map(lambda depth: {"deep": _nested(depth)})


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def from_schema(schema: Object) -> Strategy:
    """Values that keep to ``schema``, more or less: the API server decides which it accepts."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "boolean":
            return st.booleans()
        case "integer" | "number":
            least, most = schema.get("minimum", 0), schema.get("maximum", 2**63 - 1)
            whole = st.sampled_from([least, most, 1, 2]) | st.integers(least, most)
            return _mostly(whole, st.sampled_from([2**63 - 1, -1]))
        case "string":
            return _strings(schema)
        case "array":
            return st.lists(from_schema(schema["items"]), min_size=schema.get("minItems", 0), max_size=3)
    if "properties" not in schema:
        inner = schema.get("additionalProperties")
        return st.dictionaries(_NAMES, from_schema(inner), max_size=2) if inner else _JSON | _DEEP
    if {"url", "configMap"} == set(schema["properties"]):
        return st.just({"url": "https://127.0.0.1:1/odd.cloacina"}) | st.just({"configMap": {"name": "odd"}})
    required = {*schema.get("required", ()), *({"packageRef"} & set(schema["properties"]))}
    parts = {name: from_schema(value) for name, value in schema["properties"].items()}
    if "timeZone" in parts:  # they go with a schedule only, which goes without an interval
        parts = {name: part for name, part in parts.items() if name not in ("timeZone", "startingDeadlineSeconds")}
        del parts["schedule"]
    return st.fixed_dictionaries(
        {name: value for name, value in parts.items() if name in required},
        optional={name: value for name, value in parts.items() if name not in required},
    )


def _mostly(usual: Strategy, odd: Strategy) -> Strategy:
    """An object has dozens of fields, and one that is refused has the whole of it refused."""
    return st.integers(0, 39).flatmap(lambda number: odd if number == 0 else usual)


def _strings(schema: Object) -> Strategy:
    if schema.get("format") == "date-time":
        return _mostly(st.from_regex(schema["pattern"], fullmatch=True), _DATES)
    pattern = schema.get("pattern", "")
    if "(ns|us|ms|s|m|h)" in pattern:
        return _mostly(_SPANS, _ODD_SPANS)
    if pattern:
        return st.from_regex(pattern, fullmatch=True, alphabet=st.characters(codec="ascii"))
    return _NAMES | _TEXTS.map(lambda text: text[: schema.get("maxLength", 40)] or "a")


def _references(kinds: tuple[str, ...]) -> Strategy:
    return st.lists(
        st.fixed_dictionaries(
            {"apiVersion": st.sampled_from([API_VERSION, "batch/v1", "cloacina.io/v9"]), "kind": st.sampled_from(kinds),
             "name": _NAMES, "uid": _UIDS},
            optional={"controller": st.booleans()},
        ),
        max_size=1,
    )  # fmt: skip


_ANNOTATIONS = st.fixed_dictionaries(
    {},
    optional={ATTEMPT_ANNOTATION: st.sampled_from(["x", "", "-1", "9" * 400, "١", "2"]), DIGEST_ANNOTATION: _TEXTS,
              "odd": _TEXTS},
)  # fmt: skip
_LABELS = st.fixed_dictionaries(
    {MANAGED_BY_LABEL: st.just(MANAGED_BY)},
    optional={COMPONENT_LABEL: st.sampled_from(["run", "poller", "inspection", "archive", "else"]),
              PACKAGE_LABEL: _NAMES, RUN_LABEL: _NAMES},
)  # fmt: skip


def _ours(kind: type[Resource[Any, Any]]) -> Strategy:
    schema = object_schema(kind)["properties"]
    return st.fixed_dictionaries(
        {
            "apiVersion": st.just(API_VERSION),
            "kind": st.just(kind.KIND),
            "metadata": st.fixed_dictionaries(
                {"name": _NAMES, "labels": _LABELS, "annotations": _ANNOTATIONS,
                 "ownerReferences": _references((kind.KIND, "Trigger", "CloacinaPackage"))}
            ),
            "spec": from_schema(schema["spec"]),
            "status": from_schema(schema["status"]),
        }
    )  # fmt: skip


def _workload(api_version: str, kind: str, spec: Object) -> Strategy:
    content: Object = {"spec": st.just(spec)}
    if kind == "ConfigMap":
        content = {"data": st.dictionaries(_NAMES, _TEXTS, max_size=2)}
    owners = _references(("WorkflowRun", "CloacinaPackage", "Job", "ReplicaSet"))
    return st.fixed_dictionaries(
        {
            "apiVersion": st.just(api_version),
            "kind": st.just(kind),
            "metadata": st.fixed_dictionaries(
                {"name": _NAMES, "labels": _LABELS, "annotations": _ANNOTATIONS, "ownerReferences": owners}
            ),
            **content,
        }
    )


_CONTAINER = {
    "name": "main", "image": "none.invalid/none",
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}  # fmt: skip
_POD = {
    "restartPolicy": "Never", "containers": [_CONTAINER],
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
}  # fmt: skip
_TEMPLATE = {"metadata": {"labels": {"odd": "yes"}}, "spec": _POD}

OBJECTS = st.one_of(
    *(_ours(kind) for kind in STORED_KINDS),
    _workload("batch/v1", "Job", {"suspend": True, "template": _TEMPLATE}),
    _workload("v1", "Pod", _POD),
    _workload("apps/v1", "Deployment", {
        "replicas": 0, "selector": {"matchLabels": {"odd": "yes"}},
        "template": {**_TEMPLATE, "spec": {**_POD, "restartPolicy": "Always"}},
    }),
    _workload("v1", "ConfigMap", {}),
    _workload("coordination.k8s.io/v1", "Lease", {"leaseDurationSeconds": 1, "holderIdentity": "x"}),
)  # fmt: skip
