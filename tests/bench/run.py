"""Run benchmarks and write the figures down: prints, and renews its half of docs/reference/benchmarks.md.

``make bench`` for the laptop, ``make bench-cluster`` (``run.py cluster``) for clusters; the other half stays as it is.
"""

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

CLUSTER_FIGURES = (
    Figure(
        key="cluster_fire_over_bare_job",
        what="fire → first task running, over a bare Job of the same image (`date`)",
        unit="times",
        limit=1.3,
    ),
    Figure(
        key="cluster_jobs_over_plain_loop",
        what="1,000 runs created at once → their Jobs: rate over a plain loop that creates the Jobs",
        unit="times",
        limit=0.7,
        more_is_better=True,
    ),
    Figure(
        key="cluster_operator_resident_mb",
        what="operator with 1,000 packages, 2,000 triggers and 10,000 finished runs, resident",
        unit="MB",
        limit=250,
    ),
    Figure(key="cluster_restart_to_quiet_s", what="restart with those → its last request", unit="s", limit=60),
    Figure(key="cluster_requests_per_run", what="API requests of operator, poller and run, per run", unit="", limit=12),
    Figure(key="cluster_package_gone_s", what="a package is deleted → nothing of it is left", unit="s", limit=30),
)

CLUSTER_HEADING = "## On a cluster"
CLUSTER_HEAD = """
`make bench-cluster` measures this half (root, about a quarter of an hour): fires and bare Jobs one after the other on a
[node of the tests](../decisions/0025-a-node-in-namespaces.md), the rest on an API server with its controllers and no
node. A bare Job is made of the same image, as anybody makes one: its pod has the token of a service account and no
other volume. It is timed from the request that creates it to its first instruction, `date`. `same_pod` is the very pod
of the run with `date` in it, which is the floor; `without_volumes` lacks the token, too, and cannot speak to the API
server: the kubelet looks only every 0.3 s whether a pod's volumes are there, so that any volume costs about that.
"""
CLUSTER_PHASES = (
    ("poller", "the poller: from what the function found to the request that makes its run"),
    ("operator", "the operator: from there to the request that makes its Job"),
    ("scheduled", "Job controller and scheduler: until the pod is bound to the node"),
    ("started", "kubelet and containerd: volumes, sandbox, container"),
    ("imported", "Python, what we import, and the package: unpacked, checked, imported; the run is read meanwhile"),
    ("claimed", "until the run is claimed, by its first record"),
    ("task", "until the task runs"),
)

HEAD = """# Benchmarks

`make bench` measures everything on this page and writes it anew. All figures are medians unless they say otherwise.
The machine is shared and noisy: compare within one run, and expect a third more or less from one run to the next. What
library mode costs is measured in five rounds, of which the quietest counts; `…_median` is their median.
`bare_three_commits_ms` is the least that a run can record, written with `sqlite3` alone: it tells how fast the machine
was.

Every write is durable as [decision 0012](../decisions/0012-sqlite-durability.md) says. The limits are what we hold
ourselves to; a figure in **bold** does not keep its limit. The last column was measured with `cloaca` 0.12.0 from PyPI
on another machine of two cores, with SQLite. `make bench-peer PYTHON=/path/to/python` measures both on yours, with the
same script, and prints the ratios. So it did on 2026-11-27, in one round of a busy hour, ours and the other: `execute`
on a file 0.56 and 504 ms, chain of 100 tasks 17 ms and 10.3 s, 1 → 100 → 1 tasks 6.2 and 507 ms, 500 threads 1,352 and
93 runs/s, growth 0.15 and 4.2 MiB per 1,000 runs, resumed after 0.32 and 60 s.
"""


def cluster_table(figures: dict[str, float]) -> Iterable[str]:
    """The figures of a cluster that have a limit."""
    yield "| what | measured | limit |"
    yield "|---|---:|---:|"
    for figure in CLUSTER_FIGURES:
        limit = _shown(figure.limit, "≥ " if figure.more_is_better else "≤ ", figure.unit)
        yield f"| {figure.what} | {_measured(figure, figures.get(figure.key))} | {limit} |"


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
    text = f"{value:.4g} {figure.unit}".rstrip()
    if figure.limit is None:
        return text
    kept = value >= figure.limit if figure.more_is_better else value <= figure.limit
    return text if kept else f"**{text}**"


def rest(figures: dict[str, float]) -> Iterable[str]:
    """All the others."""
    yield "| figure | value |"
    yield "|---|---:|"
    named = {figure.key for figure in (*FIGURES, *CLUSTER_FIGURES)}
    for key, value in figures.items():
        if key not in named:
            yield f"| `{key}` | {value:.4g} |"


def _shown(value: float | None, prefix: str, unit: str) -> str:
    return "" if value is None else f"{prefix}{value:,g} {unit}".rstrip()


def local_half() -> list[str]:
    """Everything that needs no cluster."""
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
    return [HEAD, f"{_measured_where(load)}\n", *table(figures), "\n## Other figures\n", *rest(figures)]


def cluster_half() -> list[str]:
    """Everything that needs one."""
    import cluster_figures  # it brings the operator along

    load = os.getloadavg()[0]
    figures = cluster_figures.main()
    lines = [CLUSTER_HEADING, CLUSTER_HEAD, f"{_measured_where(load)}\n", *cluster_table(figures), ""]
    if f"cluster_phase_{CLUSTER_PHASES[0][0]}_ms" in figures:
        phases = [(said, figures.pop(f"cluster_phase_{phase}_ms")) for phase, said in CLUSTER_PHASES]
        lines += ["| where the time between a fire and its first task goes | ms |", "|---|---:|"]
        lines += [*(f"| {said} | {value:.4g} |" for said, value in phases), ""]
    return [*lines, *rest(figures)]


def _measured_where(load: float) -> str:
    where = f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    when = datetime.now(timezone.utc).date().isoformat()
    return f"Measured on {when}: {where}; load {load:.1f} before."


def main(half: str = "local") -> None:
    """Measure, print, write."""
    written = PAGE.read_text() if PAGE.exists() else ""
    local, _, of_cluster = written.partition(f"\n{CLUSTER_HEADING}\n")
    if half == "cluster":
        of_cluster = "\n".join(cluster_half()).removeprefix(f"{CLUSTER_HEADING}\n") + "\n"
    else:
        local = "\n".join(local_half()) + "\n"
    PAGE.write_text(local + (f"\n{CLUSTER_HEADING}\n{of_cluster}" if of_cluster else ""))
    print(f"written to {PAGE}")


if __name__ == "__main__":
    main(*sys.argv[1:])
