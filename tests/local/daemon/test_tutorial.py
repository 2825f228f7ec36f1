"""The published tutorial's own package, unchanged, packed by our packer and by hand, in the daemon."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from daemon_process import Daemon

from cloaca.packages.build import build_package
from cloaca.resources import RunPhase

TUTORIAL = Path(__file__).parents[2] / "tutorial"


def packed_by_us(folder: Path, archive: Path) -> None:
    build_package(folder, archive)


def packed_by_hand(folder: Path, archive: Path) -> None:
    if shutil.which("tar") is None or shutil.which("bzip2") is None:
        pytest.skip("tar and bzip2 are not installed: apt-get install tar bzip2")
    subprocess.run(["tar", "-cjf", archive, "-C", folder, "manifest.json", "data_ingest"], check=True)


@pytest.mark.parametrize("pack", [packed_by_us, packed_by_hand])
async def test_a_file_that_stays_in_the_inbox_fires_again_and_again_and_never_twice_at_once(
    anywhere: Daemon, tmp_path: Path, pack: object
) -> None:
    daemon = anywhere
    folder = shutil.copytree(TUTORIAL, tmp_path / "tutorial", ignore=shutil.ignore_patterns(".*", "__pycache__"))
    archive = daemon.home.packages / "data-ingest-1.0.0.cloacina"
    archive.parent.mkdir(parents=True)
    assert callable(pack)
    pack(folder, archive)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "orders.parquet").write_bytes(b"PAR1")
    daemon.environment["INBOX_PATH"] = str(inbox)
    daemon.start()
    await daemon.package("data-ingest", Ready=("True", "Ready"))
    runs = await daemon.runs(lambda seen: len([run for run in seen if run.status.phase.finished]) >= 2)
    finished = [run for run in runs if run.status.phase.finished]
    assert {run.status.phase for run in finished} == {RunPhase.COMPLETED}
    assert {run.spec.workflow for run in finished} == {"data_ingest"}
    for run in finished:
        context = run.status.context or {}
        assert (context["filename"], context["trigger_name"], context["valid"]) == (
            "orders.parquet",
            "inbox_watcher",
            True,
        )
        assert "loaded_at" in context
    spans = sorted((run.status.started_at, run.status.finished_at) for run in runs if run.status.started_at is not None)
    assert [later[0] for earlier, later in pairwise(spans) if earlier[1] is None or later[0] < earlier[1]] == []
    assert daemon.stop() == 0
