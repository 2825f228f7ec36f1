"""The generated CRDs: current, structural, and of one mind with the types about what is a good object."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cloaca.errors import Invalid
from cloaca.resources import KINDS, Resource
from cloaca.resources.crds import definition, main, rendered
from cloaca.resources.documents import load_documents
from cloaca.resources.reference import page

ROOT = Path(__file__).parents[3]
SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))
Kind = type[Resource[Any, Any]]
PRESERVE = "x-kubernetes-preserve-unknown-fields"
RULES = "x-kubernetes-validations"
BY_NAME = {kind.KIND: kind for kind in KINDS}


def schema_of(kind: Kind) -> dict[str, Any]:
    (version,) = definition(kind)["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from nodes(node["additionalProperties"], f"{path}.*")


ALL_NODES = [pytest.param(node, id=f"{kind.KIND}{path}") for kind in KINDS for path, node in nodes(schema_of(kind))]


# --- current -----------------------------------------------------------------------------------------------------


def test_the_definitions_under_version_control_are_current() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "crds").iterdir()}
    assert written == dict(rendered()), "stale: run `make crds`"


def test_the_reference_page_under_version_control_is_current() -> None:
    written = (ROOT / "docs" / "reference" / "resources.md").read_text(encoding="utf-8")
    assert written == page(), "stale: run `make crds`"


def test_writing_puts_everything_in_its_place(tmp_path: Path) -> None:
    main([str(tmp_path / "crds")])
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
        "crds/cloacina.io_cloacinapackages.yaml",
        "crds/cloacina.io_triggerledgers.yaml",
        "crds/cloacina.io_triggers.yaml",
        "crds/cloacina.io_workflowruns.yaml",
        "docs/reference/resources.md",
    ]


# --- structural --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", ALL_NODES)
def test_every_node_is_structural(node: dict[str, Any]) -> None:
    assert node["type"] in ("object", "array", "string", "integer", "number", "boolean")
    assert not set(node) & {"$ref", "anyOf", "oneOf", "allOf", "not", "const", "title", "nullable", "definitions"}
    assert not ("properties" in node and "additionalProperties" in node)
    assert node.get("additionalProperties") not in (True, False)
    assert node["type"] != "array" or "items" in node
    assert set(node.get("required", ())) <= set(node.get("properties", ()))
    if node.get("x-kubernetes-list-type") == "map":
        assert set(node["x-kubernetes-list-map-keys"]) <= set(node["items"]["required"])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.KIND)
def test_every_field_is_described_for_kubectl_explain(kind: Kind) -> None:
    entries = re.compile(r"\[\]$|\.\*$|^\.metadata$|\.podTemplate\.")  # described by the field that holds them
    bare = [p for p, node in nodes(schema_of(kind)) if not entries.search(p) and not node.get("description")]
    assert bare == []


@pytest.mark.parametrize("node", [param for param in ALL_NODES if RULES in param.values[0]])
def test_every_rule_says_what_is_wrong(node: dict[str, Any]) -> None:
    for rule in node[RULES]:
        assert rule["message"]
        assert "\n" not in rule["message"] + rule["rule"]  # the API server refuses line breaks in messages


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.KIND)
def test_the_names_are_what_people_type(kind: Kind) -> None:
    crd = definition(kind)
    assert crd["metadata"]["name"] == f"{kind.PLURAL}.cloacina.io"
    assert crd["spec"]["scope"] == "Namespaced"
    assert crd["spec"]["names"] == {
        "kind": kind.KIND,
        "listKind": f"{kind.KIND}List",
        "plural": kind.PLURAL,
        "singular": kind.KIND.lower(),
        "shortNames": list(kind.SHORT_NAMES),
        "categories": ["cloacina"],
    }
    (version,) = crd["spec"]["versions"]
    assert (version["served"], version["storage"], version["subresources"]) == (True, True, {"status": {}})


@pytest.mark.parametrize(
    "column",
    [pytest.param((kind, column), id=f"{kind.KIND} {column.header}") for kind in KINDS for column in kind.COLUMNS],
)
def test_every_column_shows_something_that_the_schema_has(column: tuple[Kind, Any]) -> None:
    kind, shown = column
    path = re.sub(r"\[\?[^]]*\]", "[]", shown.path)
    if path.startswith(".metadata."):
        return
    node = dict(nodes(schema_of(kind)))[path]
    expected = {"date": ("string", "date-time")}.get(shown.type, (shown.type, node.get("format")))
    assert (node["type"], node.get("format")) == expected
    assert shown.description.endswith(".")


def test_what_may_hold_anything_is_marked_so() -> None:
    preserved = {f"{kind.KIND}{p}" for kind in KINDS for p, node in nodes(schema_of(kind)) if node.get(PRESERVE)}
    assert preserved == {
        "CloacinaPackage.spec.podTemplate.metadata",
        "CloacinaPackage.spec.podTemplate.spec",
        "CloacinaPackage.status.triggers[].config",
        "Trigger.spec.config",
        "Trigger.status.effective.config",
        "Trigger.status.pending.fires[].context",
        "Trigger.status.pending.state",
        "Trigger.status.state",
        "WorkflowRun.spec.context",
        "WorkflowRun.status.checkpoint.*",
        "WorkflowRun.status.context",
    }


def test_an_object_that_nobody_looked_at_reads_as_in_progress() -> None:
    """For kstatus: metadata.generation is 1 and the defaulted observedGeneration is 0."""
    for kind in KINDS[:2]:
        status = schema_of(kind)["properties"]["status"]
        assert (status["default"], status["properties"]["observedGeneration"]["default"]) == ({}, 0)


# --- of one mind -------------------------------------------------------------------------------------------------

DIGEST = "sha256:" + "0" * 64
GOOD = {
    "CloacinaPackage": {"source": {"url": "https://packages.example.com/a.cloacina"}},
    "Trigger": {"packageRef": {"name": "data-ingest"}, "name": "inbox_watcher"},
    "WorkflowRun": {"packageRef": {"name": "data-ingest"}, "workflow": "data_ingest"},
}

ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("CloacinaPackage", {}),
    ("CloacinaPackage", {"source": {"url": "oci://registry.example.com/team/p@sha256:1"}}),
    ("CloacinaPackage", {"source": {"url": "file:///home/me/a%20b.cloacina"}}),
    ("CloacinaPackage", {"source": {"configMap": {"name": "x"}}}),
    ("CloacinaPackage", {"digest": DIGEST, "interval": "100ms", "triggers": "Manual", "runs": {}}),
    ("CloacinaPackage", {"podTemplate": {"spec": {"containers": [{"name": "main", "anything": [1]}]}}}),
    ("CloacinaPackage", {"serviceAccounts": {"poller": "a", "run": "b", "inspection": "a"}}),
    ("CloacinaPackage", {"verify": {"publicKeys": ["a"] * 16}}),  # but for the rules that only a server checks
    ("CloacinaPackage", {"source": {"url": "az://account/container/p.cloacina"}}),
    ("Trigger", {}),
    ("Trigger", {"pollInterval": "100ms", "timeout": "1ms"}),
    ("Trigger", {"pollInterval": "999999h"}),
    ("Trigger", {"config": {"any": [{"thing": None}]}, "concurrencyPolicy": "Replace"}),
    ("Trigger", {"schedule": "0 6 * * 1-5", "timeZone": "America/Argentina/Buenos_Aires"}),
    ("Trigger", {"schedule": "@hourly", "startingDeadlineSeconds": 0}),
    ("WorkflowRun", {}),
    ("WorkflowRun", {"context": {"any": [{"thing": None}]}, "cancel": True, "key": ""}),
    ("WorkflowRun", {"digest": DIGEST, "triggerRef": {"name": "a", "uid": "u"}, "backoffLimit": 0}),
]

# Refused by the schema: kind, what is wrong, where the types say so.
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("CloacinaPackage", {"source": None}, "spec.source: "),
    ("CloacinaPackage", {"source": {"url": "ftp://packages.example.com/a"}}, "spec.source.url: "),
    ("CloacinaPackage", {"source": {"url": "https://me:secret@example.com/a"}}, "spec.source.url: "),
    ("CloacinaPackage", {"source": {"url": "https://example.com"}}, "spec.source.url: "),
    ("CloacinaPackage", {"source": {"url": "/home/me/a.cloacina"}}, "spec.source.url: "),
    ("CloacinaPackage", {"source": {"url": "https://a/" + "b" * 2048}}, "spec.source.url: "),
    ("CloacinaPackage", {"source": {"configMap": {}}}, "spec.source.configMap.name: missing"),
    ("CloacinaPackage", {"source": {"configMap": {"name": "X"}}}, "spec.source.configMap.name: "),
    ("CloacinaPackage", {"source": {"configMap": {"name": "x", "key": "a/b"}}}, "spec.source.configMap.key: "),
    ("CloacinaPackage", {"digest": "sha256:abc"}, "spec.digest: "),
    ("CloacinaPackage", {"digest": DIGEST.upper()}, "spec.digest: "),
    ("CloacinaPackage", {"interval": "1 hour"}, "spec.interval: "),
    ("CloacinaPackage", {"triggers": "auto"}, "spec.triggers: "),
    ("CloacinaPackage", {"suspend": "yes"}, "spec.suspend: "),
    ("CloacinaPackage", {"image": ""}, "spec.image: "),
    ("CloacinaPackage", {"podTemplate": {"containers": []}}, "spec.podTemplate: unknown field 'containers'"),
    ("CloacinaPackage", {"podTemplate": []}, "spec.podTemplate: "),
    ("CloacinaPackage", {"runs": {"backoffLimit": -1}}, "spec.runs.backoffLimit: "),
    ("CloacinaPackage", {"runs": {"activeDeadlineSeconds": 0}}, "spec.runs.activeDeadlineSeconds: "),
    ("CloacinaPackage", {"verify": {"publicKeys": ["a"] * 17}}, "spec.verify.publicKeys: "),
    ("CloacinaPackage", {"verify": {"publicKeys": "a"}}, "spec.verify.publicKeys: "),
    ("CloacinaPackage", {"secretRef": {"name": ""}}, "spec.secretRef.name: "),
    ("Trigger", {"name": None}, "spec.name: "),
    ("Trigger", {"name": ""}, "spec.name: "),
    ("Trigger", {"name": "a" * 254}, "spec.name: "),
    ("Trigger", {"packageRef": {}}, "spec.packageRef.name: missing"),
    ("Trigger", {"packageRef": "data-ingest"}, "spec.packageRef: "),
    ("Trigger", {"pollInterval": "5"}, "spec.pollInterval: "),
    ("Trigger", {"pollInterval": 5}, "spec.pollInterval: "),
    ("Trigger", {"pollInterval": "5 s"}, "spec.pollInterval: "),
    ("Trigger", {"pollInterval": "-1s"}, "spec.pollInterval: "),
    ("Trigger", {"pollInterval": "1,5s"}, "spec.pollInterval: "),
    ("Trigger", {"timeout": "60"}, "spec.timeout: "),
    ("Trigger", {"concurrencyPolicy": "forbid"}, "spec.concurrencyPolicy: "),
    ("Trigger", {"config": "path"}, "spec.config: "),
    ("Trigger", {"config": ["path"]}, "spec.config: "),
    ("Trigger", {"schedule": ""}, "spec.schedule: "),
    ("Trigger", {"schedule": "@hourly", "timeZone": "Zürich"}, "spec.timeZone: "),
    ("Trigger", {"failedRunsHistoryLimit": 1.5}, "spec.failedRunsHistoryLimit: "),
    ("Trigger", {"poll_interval": "5s"}, "spec.poll_interval: unknown field; did you mean 'pollInterval'?"),
    ("WorkflowRun", {"workflow": None}, "spec.workflow: "),
    ("WorkflowRun", {"workflow": ""}, "spec.workflow: "),
    ("WorkflowRun", {"triggerRef": {"name": "a"}}, "spec.triggerRef.uid: missing"),
    ("WorkflowRun", {"context": []}, "spec.context: "),
    ("WorkflowRun", {"cancel": "true"}, "spec.cancel: "),
    ("WorkflowRun", {"key": "k" * 1025}, "spec.key: "),
    ("WorkflowRun", {"key": 7}, "spec.key: "),
    ("WorkflowRun", {"digest": "latest"}, "spec.digest: "),
    ("WorkflowRun", {"ttlSecondsAfterFinished": -1}, "spec.ttlSecondsAfterFinished: "),
    ("WorkflowRun", {"contxt": {}}, "spec.contxt: unknown field; did you mean 'context'?"),
]

# Refused by a rule (CEL): kind, name, what is wrong, where the types say so, and what both say.
NAME_RULE = "at most 52 lower case letters, digits and '-'"
AGAINST_RULES: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("CloacinaPackage", "a", {"source": {}}, "spec.source: ", "exactly one of url and configMap must be set"),
    ("CloacinaPackage", "a", {"source": {"url": "s3://a/b", "configMap": {"name": "x"}}}, "spec.source: ", "exactly"),
    ("CloacinaPackage", "a.b", {}, "metadata.name: ", NAME_RULE),
    ("CloacinaPackage", "a" * 53, {}, "metadata.name: ", NAME_RULE),
    (
        "CloacinaPackage",
        "a",
        {"serviceAccounts": {"poller": "own", "run": "own"}},
        "spec.serviceAccounts: ",
        "poller and run must be different accounts",
    ),
    ("Trigger", "a", {"timeZone": "UTC"}, "spec: ", "timeZone says nothing without schedule"),
    ("Trigger", "a", {"startingDeadlineSeconds": 3}, "spec: ", "says nothing without schedule"),
    ("Trigger", "a", {"schedule": "@hourly", "pollInterval": "5s"}, "spec: ", "schedule replaces polling"),
    ("CloacinaPackage", "a", {"interval": "99ms"}, "spec.interval: ", "a duration of at least 100ms"),
    ("Trigger", "a", {"pollInterval": "0s"}, "spec.pollInterval: ", "a duration of at least 100ms"),
    ("Trigger", "a", {"pollInterval": "0h0m0.05s"}, "spec.pollInterval: ", "a duration of at least 100ms"),
    ("Trigger", "a", {"timeout": "0s"}, "spec.timeout: ", "a duration of at least 1ms"),
    ("WorkflowRun", "a", {"packageRef": None}, "spec: ", "packageRef must be set"),
]


def thing(kind: str, spec: dict[str, Any], name: str = "a") -> dict[str, Any]:
    """A good object of the kind, changed; None takes a field out."""
    merged = {key: value for key, value in {**GOOD[kind], **spec}.items() if value is not None}
    return {"apiVersion": "cloacina.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": merged}


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """As kubectl validates: unknown fields are refused wherever they are not preserved."""
    schema = copy.deepcopy(schema)
    for path, node in nodes(schema):
        if path == ".metadata" or node.get(PRESERVE):
            continue
        if "properties" in node:
            node["additionalProperties"] = False
    return schema


def schema_accepts(document: dict[str, Any]) -> bool:
    return not list(jsonschema.Draft4Validator(closed(schema_of(BY_NAME[document["kind"]]))).iter_errors(document))


def faults(document: dict[str, Any]) -> list[str]:
    try:
        load_documents(yaml.safe_dump(document))
    except Invalid as error:
        return [line.partition(f"{document['metadata']['name']}: ")[2] for line in str(error).splitlines()]
    return []


def said(value: object) -> str:
    return str(value)[:60]


@pytest.mark.parametrize(("kind", "spec"), ACCEPTED, ids=said)
def test_both_accept(kind: str, spec: dict[str, Any]) -> None:
    document = thing(kind, spec)
    assert (schema_accepts(document), faults(document)) == (True, [])


@pytest.mark.parametrize(("kind", "spec", "where"), REFUSED, ids=said)
def test_both_refuse(kind: str, spec: dict[str, Any], where: str) -> None:
    document = thing(kind, spec)
    assert not schema_accepts(document)
    (fault,) = faults(document)
    assert fault.startswith(where)


@pytest.mark.parametrize(("kind", "name", "spec", "where", "message"), AGAINST_RULES, ids=said)
def test_what_a_rule_refuses_the_types_refuse(
    kind: str, name: str, spec: dict[str, Any], where: str, message: str
) -> None:
    document = thing(kind, spec, name)
    assert schema_accepts(document)
    (fault,) = faults(document)
    assert fault.startswith(where)
    assert message in fault
    rules = [rule for _, node in nodes(schema_of(BY_NAME[kind])) for rule in node.get(RULES, ())]
    assert [rule for rule in rules if message in rule["message"]]


def test_a_run_has_a_rule_for_every_field_that_may_not_change() -> None:
    spec = schema_of(BY_NAME["WorkflowRun"])["properties"]["spec"]
    held = {rule["fieldPath"][1:] for rule in spec[RULES] if "fieldPath" in rule}
    assert held == set(spec["properties"]) - {"cancel"}


# --- samples -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_every_sample_loads_and_fits_the_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    resources = load_documents(text, source=path.name)
    documents = [document for document in yaml.safe_load_all(text) if document]
    assert [resource.name for resource in resources] == [document["metadata"]["name"] for document in documents]
    for document in documents:
        jsonschema.Draft4Validator(closed(schema_of(BY_NAME[document["kind"]]))).validate(document)
    assert text.startswith("# "), "a sample says first what it shows"


def test_there_are_samples_of_every_kind() -> None:
    shown = {document["kind"] for path in SAMPLES for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))}
    assert shown == set(BY_NAME)
