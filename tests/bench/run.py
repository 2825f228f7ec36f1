"""Run every benchmark and write the figures down. ``make bench``; prints, and renews docs/reference/benchmarks.md."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import daemon
import library
import store

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "benchmarks.md"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the table. ``limit`` and ``other`` are None where there is none to compare with."""

    key: str
    what: str
    unit: str
    limit: float | None = None
    other: float | None = None  # the Rust Cloacina, measured on such a machine


FIGURES = (
    Figure(key="deploy_to_first_poll_ms", what="`cp` of an archive → first poll", unit="ms", limit=600, other=909),
    Figure(key="fire_to_first_task_ms", what="fire → first task running", unit="ms", limit=50, other=103),
    Figure(key="fire_to_second_task_ended_ms", what="fire → second task ended", unit="ms", limit=70, other=201),
    Figure(key="at_rest_one_package_pss_mb", what="daemon with one package, PSS in all", unit="MB", limit=100),
    Figure(key="each_further_package_pss_mb", what="each further package, PSS", unit="MB", limit=30),
    Figure(key="at_rest_cpu_percent", what="daemon with one package at rest, of a core", unit="%", limit=1),
    Figure(
        key="execute_file_p50_ms",
        what="`execute` of 2 tasks, SQLite file, p50",
        unit="ms",
        limit=2,
        other=504,
    ),
)

HEAD = """# Benchmarks

`make bench` measures everything on this page and writes it anew. All figures are medians unless they say otherwise.
The machine is shared and noisy: compare within one run, and expect a third more or less from one run to the next.
"""


def table(figures: dict[str, float]) -> Iterable[str]:
    """The figures that have a limit or somebody to compare with."""
    yield "| what | measured | limit | Rust Cloacina |"
    yield "|---|---:|---:|---:|"
    for figure in FIGURES:
        yield (
            f"| {figure.what} | {figures[figure.key]:.4g} {figure.unit} | {_shown(figure.limit, '≤ ', figure.unit)} "
            f"| {_shown(figure.other, '', figure.unit)} |"
        )


def rest(figures: dict[str, float]) -> Iterable[str]:
    """All the others."""
    yield "| figure | value |"
    yield "|---|---:|"
    named = {figure.key for figure in FIGURES}
    for key, value in figures.items():
        if key not in named:
            yield f"| `{key}` | {value:.4g} |"


def _shown(value: float | None, prefix: str, unit: str) -> str:
    return "" if value is None else f"{prefix}{value:g} {unit}"


def main() -> None:
    """Measure, print, write."""
    figures: dict[str, float] = {}
    for name, measure in (("store", store.main), ("library", library.main), ("daemon", daemon.main)):
        print(f"--- {name}", flush=True)
        figures |= measure()
    where = f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    when = datetime.now(timezone.utc).date().isoformat()
    lines = [HEAD, f"Measured on {when}: {where}.\n", *table(figures), "\n## Other figures\n", *rest(figures)]
    PAGE.write_text("\n".join(lines) + "\n")
    print(f"written to {PAGE}")


if __name__ == "__main__":
    main()
