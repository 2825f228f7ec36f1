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
import triggers

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "benchmarks.md"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the table. ``limit`` and ``other`` are None where there is none to compare with."""

    key: str
    what: str
    unit: str
    limit: float | None = None
    other: float | None = None  # the Rust Cloacina 0.12.0, measured on such a machine
    more_is_better: bool = False


FIGURES = (
    Figure(key="deploy_to_first_poll_ms", what="`cp` of an archive → first poll", unit="ms", limit=600, other=909),
    Figure(key="fire_to_first_task_ms", what="fire → first task running", unit="ms", limit=50, other=103),
    Figure(key="fire_to_second_task_ended_ms", what="fire → second task ended", unit="ms", limit=70, other=201),
    Figure(key="at_rest_one_package_pss_mb", what="daemon with one package, PSS in all", unit="MB", limit=100),
    Figure(key="each_further_package_pss_mb", what="each further package, PSS", unit="MB", limit=30),
    Figure(key="at_rest_cpu_percent", what="daemon with one package at rest, of a core", unit="%", limit=1),
    Figure(key="triggers_100_lateness_p99_ms", what="100 triggers every second: lateness, p99", unit="ms", limit=50),
    Figure(
        key="triggers_100_cpu_percent",
        what="100 triggers every second: in all, of a core",
        unit="%",
        limit=5,
        other=4.2,
    ),
    Figure(key="triggers_100_pss_mib", what="100 triggers every second: PSS in all", unit="MiB", limit=90, other=42),
    Figure(key="execute_file_p50_ms", what="`execute` of 2 tasks, file, p50", unit="ms", limit=0.5, other=504.7),
    Figure(key="execute_file_p99_ms", what="`execute` of 2 tasks, file, p99", unit="ms", limit=2, other=513),
    Figure(
        key="threads_500_file_runs_per_s",
        what="500 threads execute at once, SQLite file",
        unit="runs/s",
        limit=1_500,
        other=69,
        more_is_better=True,
    ),
    Figure(key="fan_1_100_1_file_ms", what="1 → 100 → 1 tasks, SQLite file", unit="ms", limit=20, other=702),
    Figure(key="chain_100_file_ms", what="chain of 100 tasks, SQLite file", unit="ms", limit=30, other=10_500),
    Figure(key="growth_mib_per_1000_runs", what="growth in 10,000 runs", unit="MiB per 1,000", limit=0.2, other=2.1),
    Figure(key="resumed_after_kill_s", what="kill -9, restart → task runs again", unit="s", limit=1, other=60.3),
    Figure(key="import_ms_over_bare", what="`import cloaca`", unit="ms", other=7.1),
    Figure(key="trivial_process_mib", what="a program that only imports, resident", unit="MiB", limit=22, other=26.0),
)

HEAD = """# Benchmarks

`make bench` measures everything on this page and writes it anew. All figures are medians unless they say otherwise.
The machine is shared and noisy: compare within one run, and expect a third more or less from one run to the next.
`bare_three_commits_ms` is the least that a run can record, written with `sqlite3` alone: it tells how fast the machine
was.

Every write is durable as [decision 0012](../decisions/0012-sqlite-durability.md) says. The limits are what we hold
ourselves to; a figure in **bold** does not keep its limit. The last column was measured with `cloaca` 0.12.0 from PyPI
on another machine of two cores, with SQLite. `make bench-peer PYTHON=/path/to/python` measures both on yours, with the
same script, and prints the ratios.
"""


def table(figures: dict[str, float]) -> Iterable[str]:
    """The figures that have a limit or somebody to compare with."""
    yield "| what | measured | limit | Rust Cloacina |"
    yield "|---|---:|---:|---:|"
    for figure in FIGURES:
        yield (
            f"| {figure.what} | {_measured(figure, figures.get(figure.key))} "
            f"| {_shown(figure.limit, '≥ ' if figure.more_is_better else '≤ ', figure.unit)} "
            f"| {_shown(figure.other, '', figure.unit)} |"
        )


def _measured(figure: Figure, value: float | None) -> str:
    if value is None:
        return "not measured"
    text = f"{value:.4g} {figure.unit}"
    if figure.limit is None:
        return text
    kept = value >= figure.limit if figure.more_is_better else value <= figure.limit
    return text if kept else f"**{text}**"


def rest(figures: dict[str, float]) -> Iterable[str]:
    """All the others."""
    yield "| figure | value |"
    yield "|---|---:|"
    named = {figure.key for figure in FIGURES}
    for key, value in figures.items():
        if key not in named:
            yield f"| `{key}` | {value:.4g} |"


def _shown(value: float | None, prefix: str, unit: str) -> str:
    return "" if value is None else f"{prefix}{value:,g} {unit}"


def main() -> None:
    """Measure, print, write."""
    figures: dict[str, float] = {}
    load = os.getloadavg()[0]
    for name, measure in (
        ("store", store.main),
        ("library", library.main),
        ("daemon", daemon.main),
        ("triggers", triggers.main),
    ):
        print(f"--- {name}", flush=True)
        figures |= measure()
    where = f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    when = datetime.now(timezone.utc).date().isoformat()
    lines = [
        HEAD,
        f"Measured on {when}: {where}; load {load:.1f} before.\n",
        *table(figures),
        "\n## Other figures\n",
        *rest(figures),
    ]
    PAGE.write_text("\n".join(lines) + "\n")
    print(f"written to {PAGE}")


if __name__ == "__main__":
    main()
