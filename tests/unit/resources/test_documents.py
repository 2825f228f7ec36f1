"""Files of resources: every fault at once, each with its line, object and field; what is written is read back."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cloaca.errors import Invalid
from cloaca.resources import CloacinaPackage, ObjectMeta, PackageSpec, Ref, RunPhase, RunSpec, RunStatus, WorkflowRun
from cloaca.resources.documents import load_documents, missing_references, to_yaml
from cloaca.resources.package import PackageSource, Verification
from cloaca.resources.plain import MAX_CHARACTERS

PACKAGE = """\
apiVersion: cloacina.io/v1alpha1
kind: CloacinaPackage
metadata: {name: data-ingest}
spec:
  source: {url: "https://packages.example.com/data-ingest.cloacina"}
"""
TRIGGER = """\
apiVersion: cloacina.io/v1alpha1
kind: Trigger
metadata: {name: inbox}
spec:
  packageRef: {name: data-ingest}
  name: inbox_watcher
"""
RUN = """\
apiVersion: cloacina.io/v1alpha1
kind: WorkflowRun
metadata: {name: once}
spec:
  packageRef: {name: data-ingest}
  workflow: data_ingest
"""


def refs(text: str, **options: Any) -> list[str]:
    return [str(resource.ref) for resource in load_documents(text, **options)]


def faults(text: str) -> list[str]:
    with pytest.raises(Invalid) as caught:
        load_documents(text, source="f.yaml")
    return str(caught.value).splitlines()


# --- what is read ------------------------------------------------------------------------------------------------


def test_several_documents_are_read_in_order_and_empty_ones_are_nothing() -> None:
    assert refs(f"# a comment\n---\n{TRIGGER}---\n---\n{PACKAGE}") == [
        "Trigger default/inbox",
        "CloacinaPackage default/data-ingest",
    ]
    assert refs("") == refs("# nothing\n") == refs("---\n---\n") == []


def test_a_list_is_taken_apart() -> None:
    items = [yaml.safe_load(PACKAGE), yaml.safe_load(TRIGGER)]
    text = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items})
    assert refs(text) == ["CloacinaPackage default/data-ingest", "Trigger default/inbox"]


def test_json_is_read_too() -> None:
    assert refs('{"apiVersion": "cloacina.io/v1alpha1", "kind": "WorkflowRun",\n\t"metadata": {"name": "once"}, '
                '"spec": {"workflow": "a", "packageRef": {"name": "p"}}}') == ["WorkflowRun default/once"]  # fmt: skip


def test_an_object_without_a_namespace_gets_the_one_that_was_asked_for() -> None:
    named = PACKAGE.replace("{name: data-ingest}", "{name: data-ingest, namespace: mine}")
    assert refs(f"{named}---\n{TRIGGER}", namespace="theirs") == [
        "CloacinaPackage mine/data-ingest",
        "Trigger theirs/inbox",
    ]


def test_a_status_is_ignored_as_kubectl_does() -> None:
    (run,) = load_documents(RUN + "status: {phase: Completed, nonsense: 1}\n")
    assert run.status == RunStatus()


def test_metadata_of_an_api_server_is_no_fault() -> None:
    metadata = "{name: once, managedFields: [], finalizers: [a], uid: u1, resourceVersion: '7', generation: 2}"
    (run,) = load_documents(RUN.replace("{name: once}", metadata))
    assert run.metadata == ObjectMeta(name="once", uid="u1", resource_version="7", generation=2)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        pytest.param("yes", True, id="yes is true, as to kubectl"),
        pytest.param("'yes'", "yes", id="quoted yes"),
        pytest.param("2026-03-28", "2026-03-28", id="a date is text"),
        pytest.param("12:30", "12:30", id="a time of day is text"),
        pytest.param("1e3", 1000.0, id="exponent"),
        pytest.param("0x1f", 31, id="hexadecimal"),
        pytest.param("007", "007", id="leading zeros are text"),
        pytest.param("-1.5", -1.5, id="float"),
        pytest.param("~", None, id="null"),
        pytest.param("&a [1, *b]", [1, 2], id="alias"),
        pytest.param("{<<: {a: 1, b: 1}, b: 2}", {"a": 1, "b": 2}, id="merge"),
        pytest.param("|\n      a\n      b\n", "a\nb\n", id="block"),
    ],
)
def test_values_are_those_of_json(written: str, value: object) -> None:
    (run,) = load_documents(RUN + f"  context:\n    b: &b 2\n    v: {written}\n")
    assert run.spec.context == {"b": 2, "v": value}


# --- what is refused ---------------------------------------------------------------------------------------------


def test_every_fault_is_told_at_once_with_line_object_and_field() -> None:
    text = dedent("""\
        apiVersion: cloacina.io/v1alpha1
        kind: Trigger
        metadata:
          name: Inbox_1
          labels: {team: "a team"}
          nmae: inbox
        spec:
          packageRef: {name: data-ingest, namespace: other}
          pollInterval: 10ms
          pollIntervall: 10s
          suspend: "yes"
          concurrencyPolicy: forbid
          successfulRunsHistoryLimit: -1
        ---
        apiVersion: cloacina.io/v1alpha1
        kind: CloacinaPackage
        metadata: {name: p}
        spec:
          source: {url: "file:///p.cloacina", configMap: {name: p}}
        """)
    assert faults(text) == [
        (
            "f.yaml:4: Trigger default/Inbox_1: metadata.name: must be at most 52 lower case letters, digits and '-', "
            "not the text \"Inbox_1\"; 'inbox-1' would do"
        ),
        (
            "f.yaml:5: Trigger default/Inbox_1: metadata.labels.team: must be at most 63 letters, digits, '-', '_' and "
            "'.', with a letter or digit at each end, not the text \"a team\""
        ),
        "f.yaml:6: Trigger default/Inbox_1: metadata.nmae: unknown field; did you mean 'name'?",
        "f.yaml:7: Trigger default/Inbox_1: spec.name: missing",
        "f.yaml:8: Trigger default/Inbox_1: spec.packageRef.namespace: unknown field",
        (
            "f.yaml:9: Trigger default/Inbox_1: spec.pollInterval: must be a duration of at least 100ms, "
            "such as 5s or 1h30m: '10ms' is shorter"
        ),
        "f.yaml:10: Trigger default/Inbox_1: spec.pollIntervall: unknown field; did you mean 'pollInterval'?",
        'f.yaml:11: Trigger default/Inbox_1: spec.suspend: must be true or false, not the text "yes"',
        (
            "f.yaml:12: Trigger default/Inbox_1: spec.concurrencyPolicy: must be one of Forbid, Allow, Replace, not "
            "the text \"forbid\"; did you mean 'Forbid'?"
        ),
        "f.yaml:13: Trigger default/Inbox_1: spec.successfulRunsHistoryLimit: must be at least 0, not the number -1",
        "f.yaml:19: CloacinaPackage default/p: spec.source: exactly one of url and configMap must be set",
    ]


TOO_BIG = "x" * (256 * 1024)
LAUGHS = "\n".join([f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("a: [1\n", ["f.yaml:2: document 1: not YAML: "], id="not YAML"),
        pytest.param("\x00", ["f.yaml:1: document 1: not YAML: "], id="a binary file"),
        pytest.param("a: \ud800", ["f.yaml:1: document 1: not UTF-8"], id="half a character"),
        pytest.param("- a\n", ['f.yaml:1: document 1: must be an object with apiVersion and kind, not the list ["a"]'],
                     id="a list"),
        pytest.param("apiVersion: v1\n", ["f.yaml:1: document 1: kind: missing"], id="no kind"),
        pytest.param("kind: Trigger\nmetadata: {name: a}\n",
                     ["f.yaml:1: Trigger default/a: apiVersion: must be cloacina.io/v1alpha1, not null"],
                     id="no apiVersion"),
        pytest.param("apiVersion: cloacina.io/v1\nkind: Trigger\n",
                     ['f.yaml:1: document 1: apiVersion: must be cloacina.io/v1alpha1, not the text "cloacina.io/v1"'],
                     id="another version"),
        pytest.param("apiVersion: v1\nkind: ConfigMap\n",
                     [("f.yaml:2: document 1: kind: 'ConfigMap' of 'v1' is none of ours (CloacinaPackage, Trigger, "
                      "WorkflowRun): use kubectl for it")],
                     id="a kind of others"),
        pytest.param("apiVersion: cloacina.io/v1alpha1\nkind: workflowrun\n",
                     [("f.yaml:2: document 1: kind: 'workflowrun' is not known: one of CloacinaPackage, Trigger, "
                      "WorkflowRun; did you mean 'WorkflowRun'?")],
                     id="a kind misspelt"),
        pytest.param(RUN.replace("metadata: {name: once}\n", ""), ["f.yaml:1: document 1: metadata.name: missing"],
                     id="no metadata"),
        pytest.param(RUN.replace("{name: once}", "once"),
                     ['f.yaml:3: document 1: metadata: must be an object, not the text "once"'], id="metadata is text"),
        pytest.param(RUN.replace("{name: once}", "{name: once, labels: {a: 1}}"),
                     ["f.yaml:3: WorkflowRun default/once: metadata.labels.a: must be a string, not the number 1"],
                     id="a label is a number"),
        pytest.param("apiVersion: cloacina.io/v1alpha1\nkind: Trigger\nmetadata: {name: a}\n",
                     ["f.yaml:1: Trigger default/a: spec: missing"], id="no spec"),
        pytest.param(RUN + "  workflow: other\n",
                     ["f.yaml:7: WorkflowRun default/once: spec.workflow: given twice, first on line 6"],
                     id="a field twice"),
        pytest.param(RUN + "extra: 1\n", ["f.yaml:7: WorkflowRun default/once: extra: unknown field"],
                     id="unknown at the top"),
        pytest.param(RUN + "  context: {a: !!python/name:os.system x}\n",
                     ["f.yaml:7: WorkflowRun default/once: spec.context.a: the tag !python/name:os.system is not"],
                     id="a tag that runs code elsewhere"),
        pytest.param(RUN + "  context: {1: a}\n",
                     ["f.yaml:7: WorkflowRun default/once: spec.context: the key 1 is no string: put it in quotes"],
                     id="a key that is no string"),
        pytest.param(RUN + "  context: {a: .nan, b: -.inf}\n",
                     ["f.yaml:7: WorkflowRun default/once: spec.context.a: .nan is no number that JSON has",
                      "f.yaml:7: WorkflowRun default/once: spec.context.b: -.inf is no number that JSON has"],
                     id="numbers that JSON has not"),
        pytest.param(RUN + f"  context: {{a: {TOO_BIG}}}\n",
                     [("f.yaml:7: WorkflowRun default/once: spec.context: 262152 bytes as JSON, more than 262144: "
                      "store the data elsewhere and pass a reference")],
                     id="a context over the limit"),
        pytest.param("x: " + "[" * 100_000, ["f.yaml:1: document 1: nested more than 100 levels deep"], id="too deep"),
        pytest.param("x: &x [*x]", ["f.yaml:1: document 1: nested more than 100 levels deep"], id="endless"),
        pytest.param(f"a:\n  a0: &a0 [1]\n{LAUGHS}\n", ["f.yaml:1: document 1: more than 200000 values once its"],
                     id="a billion laughs"),
        pytest.param("#" * (MAX_CHARACTERS + 1), ["f.yaml:1: document 1: 4194305 characters, more than 4194304"],
                     id="too long"),
        pytest.param(f"{RUN}---\n{RUN}", ["f.yaml:8: WorkflowRun default/once: declared twice, first on line 1"],
                     id="an object twice"),
        pytest.param(f"{RUN}---\na: [\n", ["f.yaml:9: document 2: not YAML: "], id="the second document is not YAML"),
        pytest.param("kind: List\nitems:\n- 5\n- kind: Trigger\n  apiVersion: v2\n  metadata: {name: a}\n",
                     ["f.yaml:3: document 1: must be an object with apiVersion and kind, not the number 5",
                      "f.yaml:4: Trigger default/a: kind: 'Trigger' of 'v2' is none of ours"],
                     id="items of a list"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, told: list[str]) -> None:
    found = faults(text)
    assert [line[: len(start)] for line, start in zip(found, told, strict=False)] == told
    assert len(found) == len(told)


# --- references --------------------------------------------------------------------------------------------------


def test_references_are_looked_up_in_the_file_and_beyond() -> None:
    everything = load_documents(f"{PACKAGE}---\n{TRIGGER}---\n{RUN}")
    assert missing_references(everything, lambda _: False) == []
    assert missing_references(everything[1:], lambda ref: ref == everything[0].ref) == []


def test_a_missing_reference_is_told_with_the_field_and_the_nearest_name() -> None:
    trigger = TRIGGER.replace("data-ingest", "data-ingset")
    run = RUN + "  triggerRef: {name: inbox2, uid: u}\n  replayOf: earlier\n"
    assert missing_references(load_documents(f"{PACKAGE}---\n{trigger}---\n{run}"), lambda _: False) == [
        (
            "Trigger default/inbox: spec.packageRef.name: there is no CloacinaPackage 'data-ingset' in namespace "
            "'default'; apply it first; did you mean 'data-ingest'?"
        ),
        (
            "WorkflowRun default/once: spec.triggerRef.name: there is no Trigger 'inbox2' in namespace 'default'; "
            "apply it first; did you mean 'inbox'?"
        ),
        (
            "WorkflowRun default/once: spec.replayOf: there is no WorkflowRun 'earlier' in namespace 'default'; apply "
            "it first"
        ),
    ]


def test_a_reference_stays_in_its_namespace() -> None:
    asked: list[Ref] = []
    missing_references(load_documents(RUN, namespace="mine"), lambda ref: not asked.append(ref))
    assert asked == [Ref("CloacinaPackage", "mine", "data-ingest")]


# --- what is written ---------------------------------------------------------------------------------------------


def test_a_resource_as_yaml() -> None:
    run = WorkflowRun(
        metadata=ObjectMeta(name="once", uid="u1"),
        spec=RunSpec(workflow="load", context={"file": "a.parquet"}),
        status=RunStatus(phase=RunPhase.FAILED, attempt=1, traceback="Traceback:\n  File x\nValueError: y"),
    )
    assert to_yaml(run) == dedent("""\
        apiVersion: cloacina.io/v1alpha1
        kind: WorkflowRun
        metadata:
          name: once
          namespace: default
          uid: u1
        spec:
          workflow: load
          context:
            file: a.parquet
          cancel: false
          backoffLimit: 3
        status:
          phase: Failed
          tasks: []
          checkpoint: {}
          attempt: 1
          failures: 0
          traceback: |-
            Traceback:
              File x
            ValueError: y
          conditions: []
          observedGeneration: 0
        """)


ODD = ["yes", "n", "1e3", "0x1", "0o7", "12:30", "2026-03-28", "~", "null", ".nan", "<<", "=", "- a", "a: b", "a \nb"]
CHARACTERS = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], include_characters="\n\t")
TEXT = st.text(CHARACTERS) | st.sampled_from(ODD)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(context=st.dictionaries(TEXT, JSON, max_size=4))
def test_what_is_written_is_read_back(context: dict[str, Any]) -> None:
    run = WorkflowRun(
        metadata=ObjectMeta(name="once"),
        spec=RunSpec.model_validate({"workflow": "load", "packageRef": {"name": "p"}, "context": context}),
    )
    assert load_documents(to_yaml(run, run.with_metadata(name="twice"))) == [run, run.with_metadata(name="twice")]


def test_a_key_in_pem_survives() -> None:
    pem = "-----BEGIN PUBLIC KEY-----\nMCow=\n-----END PUBLIC KEY-----\n"
    spec = PackageSpec(source=PackageSource(url="https://a/b"), verify=Verification(public_keys=(pem,)))
    package = CloacinaPackage(metadata=ObjectMeta(name="p"), spec=spec)
    assert "    - |\n      -----BEGIN" in to_yaml(package)
    assert load_documents(to_yaml(package)) == [package]


def test_a_file_on_disk_with_windows_line_ends_is_read(tmp_path: Path) -> None:
    path = tmp_path / "package.yaml"
    path.write_bytes(PACKAGE.replace("\n", "\r\n").encode())
    assert refs(path.read_text(encoding="utf-8")) == ["CloacinaPackage default/data-ingest"]
