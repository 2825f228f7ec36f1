"""The end-to-end story on a real kubelet: what a person does, and what there is to see."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from cluster.story import orders
from cluster.story.scene import PATIENCE, ROOT, Scene
from cluster.story.stage import DATA
from groups import NODE

from cloaca.packages.build import build_package

pytestmark = NODE

GOLDEN = Path(__file__).with_name("golden")
TIMES = ("AGE", "LAST FIRE", "STARTED", "FINISHED")
TIME = "TIME"
GONE = 30.0  # seconds in which all of a deleted package is gone: a promise, whatever $CLOACINA_PATIENCE says


def test_the_tutorial_from_its_package_to_a_run(story: Scene, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns(".*", "__pycache__")
    folder = shutil.copytree(ROOT / "tests" / "tutorial", tmp_path / "tutorial", ignore=ignored)
    archive = tmp_path / "data-ingest.cloacina"
    build_package(folder, archive)

    story.deploy("data-ingest", archive.read_bytes(), "1.0.0", podTemplate={"spec": DATA})
    story.await_version("data-ingest", "1.0.0")
    story.bring("orders_20260328.parquet")
    story.until("a run", lambda: story.runs("data-ingest"))
    story.shell("rm inbox/*")  # the tutorial's trigger fires for as long as it is there
    (name,) = story.runs("data-ingest")
    run = story.await_run(name)

    assert {task["id"]: task["phase"] for task in run["status"]["tasks"]} == {
        "validate": "Completed",
        "load": "Completed",
    }
    context = run["status"]["context"]
    assert (context["filename"], context["valid"]) == ("orders_20260328.parquet", True)
    assert shown(story) == (GOLDEN / "get.txt").read_text()
    polls = story.scraped("data-ingest")
    fired = polls["cloacina_polls_total story data-ingest fired"]
    assert polls["cloacina_fires_total story data-ingest"] == fired >= 1


def shown(story: Scene) -> str:
    """What ``kubectl get`` shows, without times and the number of the tick that fired."""
    lines = []
    names: list[str] = []
    for line in story.kubectl("get", "cpkg,ctrig,crun").splitlines():
        cells = re.split(r" {2,}", line.rstrip())
        names = cells if cells[0] == "NAME" else names
        lines.append(
            [TIME if name in TIMES and name != cell else cell for name, cell in zip(names, cells, strict=False)]
        )
    return re.sub(r"(?<=watcher-)\d+(?= )", "TICK", "".join("  ".join(cells) + "\n" for cells in lines))


def test_an_upgrade_leaves_a_run_in_flight_alone(orders_package: Scene) -> None:
    story = orders_package
    story.bring("early", held=True)
    story.await_effect("early", "begun 1.0.0")

    story.deploy("orders", orders.packed("2.0.0"), "2.0.0", podTemplate={"spec": DATA})
    story.await_version("orders", "2.0.0")
    story.bring("late")
    story.await_run(story.run_of("late"))
    story.release("early")
    story.await_run(story.run_of("early"))

    assert story.effects("early") == ["first 1.0.0", "begun 1.0.0", "ended 1.0.0"]
    assert story.effects("late") == ["first 2.0.0", "begun 2.0.0", "ended 2.0.0"]
    assert story.runs() == {"early": "Completed", "late": "Completed"}


def test_what_a_run_printed_is_read_while_it_runs_and_afterwards(orders_package: Scene) -> None:
    story = orders_package
    story.bring("one", held=True)
    story.await_effect("one", "begun 1.0.0")
    name, printed = story.run_of("one"), ["first one 1.0.0\n", "begun one 1.0.0\n", "ended one 1.0.0\n"]

    with story.cloaca("logs", name, "--follow") as following:
        assert following.stdout is not None
        assert [following.stdout.readline() for _ in printed[:2]] == printed[:2]
        story.release("one")
        rest, remarks = following.communicate(timeout=PATIENCE)
    assert (following.returncode, rest, remarks) == (0, printed[2], "")

    story.await_run(name)
    for words, lines in ((["logs", name], printed), (["logs", name, "--tail=1"], printed[2:])):
        with story.cloaca(*words) as reading:
            assert reading.communicate(timeout=PATIENCE) == ("".join(lines), "")
    with story.cloaca("logs", "package/orders") as reading:
        said, remarks = reading.communicate(timeout=PATIENCE)
    assert (reading.returncode, remarks) == (0, ""), said


@pytest.mark.parametrize("operator", [pytest.param("up", marks=pytest.mark.long), "down"])
def test_a_deleted_package_is_gone_with_all_it_had(orders_package: Scene, operator: str) -> None:
    story = orders_package
    story.bring("one")
    story.await_run(story.run_of("one"))
    story.bring("two", held=True)  # and one that runs
    story.await_effect("two", "begun 1.0.0")
    if operator == "down":
        story.stop_operator()
    try:
        story.kubectl("delete", "cpkg/orders", "--wait=false")
        story.until("all of it to go", lambda: not story.left_of("orders"), patience=GONE)
    finally:
        if operator == "down":
            story.start_operator()
