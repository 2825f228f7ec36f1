"""How many runs may run at once: the others wait for their turn, and all of them get it."""

from __future__ import annotations

from pathlib import Path

from builders import WORKFLOW, archive
from daemon_process import Daemon

from cloaca.resources import ObjectMeta, RunPhase, RunSpec, WorkflowRun
from cloaca.resources.trigger import PackageReference

COUNTED = WORKFLOW.replace(
    'context.set("done", True)',
    """
        import pathlib
        here = pathlib.Path(os.environ["FOLDER"], str(os.getpid()))
        here.touch()
        time.sleep(0.2)
        context.set("seen", len(list(here.parent.iterdir())))
        here.unlink()""",
)


async def test_runs_over_the_limit_wait_and_every_one_of_them_runs(daemon: Daemon, tmp_path: Path) -> None:
    folder = tmp_path / "going"
    folder.mkdir()
    daemon.environment["FOLDER"] = str(folder)
    daemon.home.config.parent.mkdir(parents=True, exist_ok=True)
    daemon.home.config.write_text("max_runs = 2\nmax_runs_per_package = 1\n")
    daemon.deploy(archive(COUNTED), "demo-1.0.0.cloacina")
    daemon.deploy(archive(COUNTED, name="other"), "other-1.0.0.cloacina")
    daemon.start()
    for package in ("demo", "other"):
        await daemon.package(package, Ready=("True", "Ready"))
        for number in range(4):
            spec = RunSpec(package_ref=PackageReference(name=package), workflow="demo")
            await daemon.submit(WorkflowRun(metadata=ObjectMeta(name=f"{package}-{number}"), spec=spec))

    runs = await daemon.runs(lambda runs: len(runs) == 8 and all(run.status.phase.finished for run in runs))
    assert {run.status.phase for run in runs} == {RunPhase.COMPLETED}
    assert max((run.status.context or {})["seen"] for run in runs) <= 2
