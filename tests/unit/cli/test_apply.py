"""``apply`` and ``delete``: what files say becomes so, and all of their faults are told before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloaca.resources import CloacinaPackage, ObjectMeta, RunPhase, Trigger, WorkflowRun, owned_by
from cloaca.store import Store

NO_DAEMON = "note: no daemon runs on {home}, so nothing is polled and no run starts: start `cloaca daemon`\n"

PACKAGE = """
apiVersion: cloacina.io/v1alpha1
kind: CloacinaPackage
metadata: {name: demo, labels: {team: a}}
spec: {source: {url: "file:///tmp/demo-1.0.0.cloacina"}}
"""
TRIGGER = """
apiVersion: cloacina.io/v1alpha1
kind: Trigger
metadata: {name: demo-tick}
spec: {packageRef: {name: demo}, name: tick, pollInterval: 5s}
"""
RUN = """
apiVersion: cloacina.io/v1alpha1
kind: WorkflowRun
metadata: {name: once}
spec: {packageRef: {name: demo}, workflow: demo, context: {n: 1}}
"""
CREATED = "cloacinapackage.cloacina.io/demo created\ntrigger.cloacina.io/demo-tick created\n"


def test_objects_are_created_then_unchanged_then_configured(cloaca: Any, tmp_path: Path) -> None:
    (tmp_path / "trigger.yaml").write_text(TRIGGER)
    (tmp_path / "package.yaml").write_text(PACKAGE)
    files = ["-f", "trigger.yaml", "-f", "package.yaml"]
    first = cloaca("apply", *files)
    assert (first.code, first.out, first.err) == (0, CREATED, NO_DAEMON.format(home=cloaca.home.root))
    assert cloaca("apply", *files).out == CREATED.replace("created", "unchanged")
    (tmp_path / "trigger.yaml").write_text(TRIGGER.replace("5s", "1s"))
    third = cloaca("apply", *files)
    assert third.out == CREATED.replace("demo created", "demo unchanged").replace("created", "configured")
    trigger = cloaca.look(Trigger, "demo-tick")
    assert (trigger.spec.poll_interval, trigger.metadata.generation) == ("1s", 2)


def test_labels_are_added_and_status_and_owners_are_left_alone(cloaca: Any) -> None:
    cloaca("apply", "-f", "-", stdin=PACKAGE)

    async def observed(store: Store) -> None:
        package = await store.get(CloacinaPackage, "demo")
        assert package is not None
        await store.write_status(package.with_status(trigger_count=7))
        owned = Trigger.model_validate({"metadata": {"name": "demo-tick"}, "spec": SPEC})
        await store.create(owned.with_metadata(owner_references=(owned_by(package),), labels={"from": "operator"}))

    cloaca.store(observed)
    changed = PACKAGE.replace("team: a", "tier: b").replace("spec:", "status: {triggerCount: 99}\nspec:")
    cloaca("apply", "-f", "-", stdin=f"{changed}---{TRIGGER}")
    package, trigger = cloaca.look(CloacinaPackage, "demo"), cloaca.look(Trigger, "demo-tick")
    assert (package.metadata.labels, package.status.trigger_count) == ({"team": "a", "tier": "b"}, 7)
    assert (trigger.metadata.labels, len(trigger.metadata.owner_references)) == ({"from": "operator"}, 1)


SPEC = {"packageRef": {"name": "demo"}, "name": "tick"}


def test_what_get_shows_can_be_applied_elsewhere(cloaca: Any, tmp_path: Path) -> None:
    cloaca("apply", "-f", "-", stdin=f"{PACKAGE}---{TRIGGER}")
    for form in ("yaml", "json"):
        shown = cloaca("get", "cpkg,ctrig", "-o", form).out
        assert cloaca("apply", "-f", "-", stdin=shown).out == CREATED.replace("created", "unchanged")
        assert cloaca("apply", "-f", "-", "--home", tmp_path / form, stdin=shown).out == CREATED


def test_a_folder_is_all_of_its_files(cloaca: Any, tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    folder.mkdir()
    (folder / "b.yml").write_text(TRIGGER)
    (folder / "a.yaml").write_text(PACKAGE)
    (folder / "notes.txt").write_text("no object")
    assert cloaca("apply", "-f", folder).out == CREATED


def test_every_fault_of_every_file_is_told_and_nothing_is_written(cloaca: Any, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(PACKAGE.replace("source", "sauce"))
    (tmp_path / "b.yaml").write_text(TRIGGER.replace("5s", "5 s"))
    (tmp_path / "c.yaml").write_text(PACKAGE.replace("name: demo", "name: fine"))
    said = cloaca("apply", "-f", "a.yaml", "-f", "b.yaml", "-f", "c.yaml")
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines()[0] == "Error: nothing was applied, because of 3 faults:"
    assert "a.yaml:5: CloacinaPackage default/demo: spec.sauce: unknown field; did you mean 'source'?" in said.err
    assert (
        "b.yaml:5: Trigger default/demo-tick: spec.pollInterval: must be a duration: numbers with ns, us, ms"
        in said.err
    )
    assert cloaca("get", "cpkg", "-o", "name").out == ""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param(
            TRIGGER,
            "Trigger default/demo-tick: spec.packageRef.name: there is no CloacinaPackage 'demo' in namespace "
            "'default'; apply it first",
            id="a trigger without its package",
        ),
        pytest.param(
            f"{PACKAGE}---{PACKAGE}",
            "<stdin>:7: CloacinaPackage default/demo: declared twice, first on line 2: remove one of them",
            id="an object twice",
        ),
    ],
)
def test_a_fault_between_objects_is_told(text: str, fault: str, cloaca: Any) -> None:
    said = cloaca("apply", "-f", "-", stdin=text)
    assert (said.code, said.out) == (1, "")
    assert said.err == f"Error: nothing was applied, because of one fault:\n  {fault}\n"


def test_one_object_in_two_files_is_a_fault(cloaca: Any, tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(PACKAGE)
    said = cloaca("apply", "-f", "a.yaml", "-f", "b.yaml")
    assert "b.yaml: CloacinaPackage default/demo: declared in a.yaml too: remove one of them" in said.err


def test_a_run_cannot_be_changed_but_for_its_cancellation(cloaca: Any) -> None:
    cloaca("apply", "-f", "-", stdin=f"{PACKAGE}---{RUN}")
    said = cloaca("apply", "-f", "-", stdin=RUN.replace("n: 1", "n: 2"))
    assert (said.code, said.err.splitlines()[1:]) == (
        1,
        ["  WorkflowRun default/once: spec.context: cannot be changed: submit a new run instead"],
    )
    said = cloaca("apply", "-f", "-", stdin=RUN.replace("workflow:", "cancel: true, workflow:"))
    assert (said.code, said.out) == (0, "workflowrun.cloacina.io/once configured\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        pytest.param(["apply"], "say what to apply: -f FILE, several times if there are several", id="no file"),
        pytest.param(["apply", "-f", "none.yaml"], "none.yaml: cannot be read: No such file or directory", id="absent"),
        pytest.param(["apply", "-f", "-"], "there are no objects in -", id="empty"),
        pytest.param(["apply", "-f", "-", "-f", "-"], "standard input can be read once", id="standard input twice"),
        pytest.param(["apply", "-f", "."], ".: the folder has no file that ends in .yaml, .yml, .json", id="no files"),
    ],
)
def test_what_cannot_be_read_is_said(words: list[str], sentence: str, cloaca: Any) -> None:
    said = cloaca(*words)
    assert said.code == 1
    assert said.err.startswith(f"Error: {sentence}")


def test_deletion_takes_what_an_object_owns(cloaca: Any) -> None:
    cloaca("apply", "-f", "-", stdin=PACKAGE)

    async def children(store: Store) -> None:
        package = await store.get(CloacinaPackage, "demo")
        assert package is not None
        trigger = Trigger.model_validate({"metadata": {"name": "demo-tick"}, "spec": SPEC})
        made = await store.create(trigger.with_metadata(owner_references=(owned_by(package),)))
        run = WorkflowRun.model_validate({"metadata": {"name": "r"}, "spec": {"workflow": "demo"}})
        await store.create(run.with_metadata(owner_references=(owned_by(made),)))

    cloaca.store(children)
    said = cloaca("delete", "cpkg", "demo")
    assert (said.code, said.out, said.err) == (0, 'cloacinapackage.cloacina.io "demo" deleted\n', "")
    assert cloaca("get", "all").err == "No resources found in default namespace.\n"


def test_deletion_of_what_a_file_declares(cloaca: Any) -> None:
    cloaca("apply", "-f", "-", stdin=f"{PACKAGE}---{TRIGGER}")
    said = cloaca("delete", "-f", "-", stdin=f"{PACKAGE}---{TRIGGER}")
    assert said.out == 'cloacinapackage.cloacina.io "demo" deleted\ntrigger.cloacina.io "demo-tick" deleted\n'
    again = cloaca("delete", "-f", "-", stdin=PACKAGE)
    assert (again.code, again.err) == (1, "Error: there is no CloacinaPackage 'demo' in namespace 'default'\n")
    assert cloaca("delete", "-f", "-", "--ignore-not-found", stdin=PACKAGE).code == 0


def test_deletion_by_label_and_of_all(cloaca: Any) -> None:
    runs = [
        WorkflowRun.model_validate({"metadata": {"name": n, "labels": {"w": w}}, "spec": {"workflow": "demo"}})
        for n, w in (("a", "x"), ("b", "y"), ("c", "y"))
    ]
    cloaca.put(*runs)
    assert cloaca("delete", "crun", "-l", "w=x").out == 'workflowrun.cloacina.io "a" deleted\n'
    assert cloaca("delete", "crun").err == (
        "Error: say which ones to delete: by name, by label with -l, or all of them with --all\n"
    )
    assert len(cloaca("delete", "crun", "--all").out.splitlines()) == 2


def test_a_package_whose_archive_stays_in_the_folder_says_that_it_comes_back(cloaca: Any) -> None:
    archive = cloaca.home.packages / "demo-1.0.0.cloacina"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"")
    cloaca("apply", "-f", "-", stdin=PACKAGE.replace("/tmp/demo-1.0.0.cloacina", str(archive)))
    said = cloaca("delete", "package/demo")
    assert said.err == f"note: {archive} is still there, so the daemon deploys it again: remove the file\n"


def run(name: str, phase: RunPhase = RunPhase.PENDING) -> WorkflowRun:
    made = WorkflowRun.model_validate({"spec": {"workflow": "demo", "packageRef": {"name": "demo"}}})
    return made.model_copy(update={"metadata": ObjectMeta(name=name)}).with_status(phase=phase)  # type: ignore[no-any-return]  # the copy of a run is one


def test_suspending_and_resuming_is_done_once(cloaca: Any) -> None:
    cloaca("apply", "-f", "-", stdin=f"{PACKAGE}---{TRIGGER}")
    words = ("cpkg/demo", "ctrig/demo-tick")
    outcomes = ("suspended", "unchanged (suspended before)", "resumed", "unchanged (resumed before)")
    for verb, outcome in zip(("suspend", "suspend", "resume", "resume"), outcomes, strict=True):
        said = cloaca(verb, *words).out
        assert said == f"cloacinapackage.cloacina.io/demo {outcome}\ntrigger.cloacina.io/demo-tick {outcome}\n"


def test_suspending_changes_nothing_when_one_of_several_is_missing(cloaca: Any) -> None:
    cloaca("apply", "-f", "-", stdin=f"{PACKAGE}---{TRIGGER}")
    said = cloaca("suspend", "ctrig", "demo-tick", "demo-tock")
    assert said.err == ("Error: there is no Trigger 'demo-tock' in namespace 'default': did you mean 'demo-tick'?\n")
    assert cloaca.look(Trigger, "demo-tick").spec.suspend is False


def test_a_run_is_cancelled_once_and_only_while_it_goes_on(cloaca: Any) -> None:
    cloaca.put(run("going"), run("gone", RunPhase.COMPLETED))
    assert cloaca("cancel", "going").out == "workflowrun.cloacina.io/going cancelled\n"
    assert cloaca("cancel", "crun/going").out == "workflowrun.cloacina.io/going unchanged (cancelled before)\n"
    assert cloaca("cancel", "run", "going").out == "workflowrun.cloacina.io/going unchanged (cancelled before)\n"
    assert cloaca("cancel", "gone").err == (
        "Error: run 'gone' has ended already (Completed): there is nothing to cancel\n"
    )
    assert cloaca.look(WorkflowRun, "going").spec.cancel is True


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        pytest.param(["suspend", "ctrig"], "say which one to suspend: KIND NAME", id="no name"),
        pytest.param(["suspend", "crun/x"], "a run cannot be suspended: `cloaca cancel NAME` stops it", id="a run"),
        pytest.param(["resume", "run", "x"], "a run cannot be resumed", id="resume a run"),
        pytest.param(["cancel", "ctrig/x"], "'ctrig/x' is no run: only runs can be cancelled", id="cancel a trigger"),
    ],
)
def test_what_makes_no_sense_is_said(words: list[str], sentence: str, cloaca: Any) -> None:
    said = cloaca(*words)
    assert (said.code, said.err.startswith(f"Error: {sentence}")) == (1, True), said.err
