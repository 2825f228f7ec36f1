"""What `cloaca check` says of an archive for another Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from builders import WORKFLOW, archive


def test_check_refuses_an_archive_that_this_python_cannot_run(tmp_path: Path) -> None:
    path = tmp_path / "demo-1.0.0.cloacina"
    path.write_bytes(archive(WORKFLOW, python={"requires_python": ">=4.0", "entry_module": "demo"}))
    command = [sys.executable, "-m", "cloaca.cli.main", "check", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "requires_python is '>=4.0'" in done.stdout.replace("\n", " ")
