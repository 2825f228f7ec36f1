"""What an inspection found comes back whole through a container's termination message."""

import base64

import pytest
from builders import archive, declared

from cloaca.errors import ImportCrashed, ImportTimedOut, LoadError
from cloaca.packages.archive import read_archive
from cloaca.packages.inventory import Inventory, Place, TaskItem, TriggerItem, WorkflowItem
from cloaca.packages.manifest import Manifest
from cloaca.processes.report import LONGEST, read_report, report_failure, report_inventory


def package(count: int) -> tuple[Manifest, Inventory]:
    """A manifest of ``count`` tasks in a chain, and the code that agrees with it."""
    names = [f"load_{index * 7919 % 100_003:05d}" for index in range(count)]
    tasks = [
        {"id": name, "function": f"demo.steps:{name}", "dependencies": names[index - 1 : index] if index else []}
        for index, name in enumerate(names)
    ]
    manifest = read_archive(archive("", tasks=tasks, triggers=[declared("inbox")])).manifest
    items = tuple(
        TaskItem(
            id=task["id"],
            function=task["function"],
            dependencies=tuple(task["dependencies"]),
            description=f"Step {index} of {count}.",
            place=Place(file="demo/steps.py", line=11 * index),
        )
        for index, task in enumerate(tasks)
    )
    triggers = (TriggerItem(name="inbox", function="demo:inbox", poll_interval="200ms"),)
    return manifest, Inventory(workflows=(WorkflowItem(name="demo", tasks=items),), triggers=triggers)


@pytest.mark.parametrize("count", [1, 60])
def test_an_ordinary_package_comes_back_whole(count: int) -> None:
    manifest, inventory = package(count)

    text = report_inventory(inventory, manifest)

    assert len(text.encode()) <= LONGEST
    assert read_report(text, manifest) == inventory


def test_a_big_package_comes_back_without_what_nobody_compares() -> None:
    manifest, inventory = package(400)

    found = read_report(report_inventory(inventory, manifest), manifest)

    assert found.task_ids_by_workflow() == inventory.task_ids_by_workflow()
    assert [t.dependencies for t in found.workflows[0].tasks] == [t.dependencies for t in inventory.workflows[0].tasks]
    assert found.workflows[0].tasks[0].place is None


def test_what_does_not_fit_at_all_is_refused_with_words() -> None:
    manifest, inventory = package(5_000)

    with pytest.raises(LoadError, match="5000 tasks and 1 triggers is longer than the 4096 bytes"):
        read_report(report_inventory(inventory, manifest), manifest)


@pytest.mark.parametrize(
    "error",
    [
        LoadError("importing 'demo' failed: KeyError: 'X'", "Traceback: …\nKeyError: 'X'"),
        ImportTimedOut("the import took longer than 60 s"),
        ImportCrashed("signal 11 (SIGSEGV)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failure_comes_back_as_the_same_error(error: LoadError) -> None:
    manifest, _ = package(1)

    with pytest.raises(type(error)) as caught:
        read_report(report_failure(error), manifest)

    assert type(caught.value) is type(error)
    assert (str(caught.value), caught.value.traceback_text) == (str(error), error.traceback_text)


def test_of_a_long_traceback_the_end_comes_back() -> None:
    manifest, _ = package(1)
    import random

    chance = random.Random(7)
    noise = "".join(chr(chance.randrange(33, 0x2FF)) for _ in range(30_000))

    text = report_failure(LoadError("failed", f"{noise}\nKeyError: 'X'"))

    assert len(text) <= LONGEST
    with pytest.raises(LoadError) as caught:
        read_report(text, manifest)
    assert caught.value.traceback_text.endswith("KeyError: 'X'")


@pytest.mark.parametrize(
    "text",
    ["", "not base85 ~~~ \x00", base64.b85encode(b"not zlib").decode(), "a" * 4096],
    ids=["nothing", "text", "no zlib", "noise"],
)
def test_what_user_code_wrote_in_its_place_is_a_crash(text: str) -> None:
    manifest, _ = package(1)

    with pytest.raises(ImportCrashed, match="no report"):
        read_report(text, manifest)
