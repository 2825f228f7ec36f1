"""Measure our ``cloaca`` and another interpreter's with the very same script, one after the other: ``make bench-peer``.

It installs nothing: whoever calls brings an interpreter that has another ``cloaca``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LIBRARY = Path(__file__).resolve().parent / "library.py"
OURS = ("--rounds", "1", "--runs", "50", "--large", "2", "--soak", "2000", "--patience", "90")
"""Fewer than in ``make bench``."""
THEIRS = ("--rounds", "1", "--runs", "50", "--large", "2", "--soak", "300", "--patience", "90")
"""Fewer still: at half a second an execution a soak takes minutes; growth is told for each 1,000 runs anyhow."""

NONE = """No other implementation was measured: name an interpreter that has one.
    make bench-peer PYTHON=/path/to/python     (pip install cloaca==0.12.0; its wheels need glibc 2.38 or newer)
"""


def whose(python: str) -> str | None:
    """Which ``cloaca`` the interpreter has; None: none, or it cannot be started."""
    ask = "import cloaca, importlib.metadata as m; print(cloaca.__file__, m.version('cloaca'))"
    try:
        said = subprocess.run([python, "-P", "-c", ask], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return said.stdout.strip() or None


def figures(python: str, counts: tuple[str, ...]) -> dict[str, float]:
    """Of one interpreter; what goes wrong there is shown."""
    said = subprocess.run([python, LIBRARY, *counts, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, float] = json.loads(answer(said.stdout))
    return measured


def answer(said: str) -> str:
    """The last line that is an object: what a library prints when its process ends may stand behind it."""
    return next(line for line in reversed(said.splitlines()) if line.startswith("{"))


def main() -> int:
    """Measure both and print the ratios."""
    other = sys.argv[1] if len(sys.argv) > 1 else ""
    found = whose(other) if other else None
    if found is None:
        print(f"{other}: it has no package 'cloaca'.\n{NONE}" if other else NONE, file=sys.stderr)
        return 2
    print(f"the other one: {found}", flush=True)
    ours, theirs = figures(sys.executable, OURS), figures(other, THEIRS)
    print(f"{'figure':32} {'ours':>12} {'other':>12} {'other/ours':>12}")
    for key in sorted(ours.keys() | theirs.keys()):
        mine, its = ours.get(key), theirs.get(key)
        ratio = f"{its / mine:12.2f}" if mine and its else f"{'':12}"
        print(f"{key:32} {_shown(mine)} {_shown(its)} {ratio}")
    return 0


def _shown(value: float | None) -> str:
    return f"{'none':>12}" if value is None else f"{value:12.3f}"


if __name__ == "__main__":
    sys.exit(main())
