"""Kill a real daemon, or something that it started, again and again, from a seed; then look what is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from daemon_process import Daemon, processes_with
from faults.storm.judge import Verdict, judge
from faults.storm.package import ALONE, FORGETFUL, TASKS, TRIGGERS, package

from cloaca.resources import CloacinaPackage, ObjectMeta, Trigger, WorkflowRun
from cloaca.resources.package import PackageSource, PackageSpec, RunDefaults
from cloaca.store import Store

PAUSES = (0.5, 3.0)  # seconds between two kills
OF_THE_DAEMON = 0.7  # of all kills; the others strike one of its zygotes, workers or runs
KEPT = 100_000  # finished runs of every second trigger; of the others the daemon keeps its default, and a ledger
LAST_WORDS = 10.0  # seconds in which what a dead daemon had started must be gone
QUIET = 6.0  # seconds without anything new that count as rest
PATIENCE = 600.0  # seconds in which all is done once nothing is killed and nothing new is found


@dataclass(frozen=True, kw_only=True)
class Storm:
    """What was done, and what came of it."""

    seed: int
    seconds: float
    kills: Counter[str]
    verdict: Verdict
    integrity: str
    broken: tuple[str, ...]

    def __str__(self) -> str:
        """One sentence."""
        kills = ", ".join(f"{count} of a {what}" for what, count in sorted(self.kills.items()))
        verdict = self.verdict
        return (
            f"{self.seconds:,.0f} s from seed {self.seed}: {sum(self.kills.values())} kills ({kills}); "
            f"{verdict.fires:,} fires, {verdict.runs:,} runs, {verdict.resumed} of them resumed; {verdict.forgotten} "
            "fires of functions with neither key nor state nor yield died with the process that made them; "
            f"{len(self.broken)} promises broken, integrity_check: {self.integrity}."
        )


async def blow(folder: Path, *, seconds: float, seed: int) -> Storm:
    """Let it blow for ``seconds``, then wait for rest. ``folder`` is empty, and is left for whoever wants to look."""
    chance = random.Random(seed)
    daemon = Daemon(folder / "home")
    daemon.environment = {"STORM_FOLDER": str(folder), "STORM_STARTED": str(time.time())}
    (folder / "record").touch()
    (folder / "taken").mkdir()
    (folder / "demo.cloacina").write_bytes(package())
    kills: Counter[str] = Counter()
    broken: list[str] = []
    _start(daemon, generation=0)
    try:
        await _deploy(daemon, folder / "demo.cloacina")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(chance.uniform(*PAUSES))
            broken += await _outlived(daemon, kills["daemon"])
            if chance.random() < OF_THE_DAEMON:
                _kill(daemon)
                kills["daemon"] += 1
                _start(daemon, generation=kills["daemon"])
            elif _kill_a_child(daemon, chance):
                kills["process that it had started"] += 1
        (folder / "over").touch()
        runs = await _rest(daemon, folder / "record")
        if daemon.stop() != 0:
            broken.append("the daemon did not stop when it was asked to")
        broken += await _outlived(daemon, kills["daemon"] + 1)
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            _kill(daemon)
    lines = [json.loads(line) for line in (folder / "record").read_text().splitlines()]
    verdict = judge(lines, runs, tasks=TASKS, alone=ALONE, forgetful=FORGETFUL)
    with contextlib.closing(sqlite3.connect(daemon.home.database)) as connection:
        integrity = str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    if integrity != "ok":
        broken.append(f"integrity_check: {integrity}")
    return Storm(
        seed=seed,
        seconds=seconds,
        kills=kills,
        verdict=verdict,
        integrity=integrity,
        broken=(*broken, *verdict.broken),
    )


def _kill(daemon: Daemon) -> None:
    """The daemon alone, and whoever starts it again does not wait for what it had started."""
    assert daemon.process is not None
    daemon.process.kill()
    daemon.process.wait()


def _start(daemon: Daemon, *, generation: int) -> None:
    daemon.environment["STORM_GENERATION"] = f"{generation} of {daemon.home.root}"
    daemon.start()


async def _deploy(daemon: Daemon, archive: Path) -> None:
    """Every second trigger keeps its finished runs, so that the store can be asked for them."""
    await daemon.eventually("the store", lambda store: asyncio.sleep(0, True))
    spec = PackageSpec(source=PackageSource(url=archive.as_uri()), runs=RunDefaults(backoff_limit=1_000))
    await daemon.submit(CloacinaPackage(metadata=ObjectMeta(name="demo"), spec=spec))
    for name, _ in TRIGGERS[::2]:
        trigger = await daemon.trigger(f"demo-{name.replace('_', '-')}", lambda _: True)
        await daemon.update(trigger.with_spec(successful_runs_history_limit=KEPT, failed_runs_history_limit=KEPT))


async def _outlived(daemon: Daemon, generations: int) -> list[str]:
    """What is still there of daemons that are dead."""
    deadline = time.monotonic() + LAST_WORDS
    broken = []
    for generation in range(max(0, generations - 3), generations):
        mark = f"STORM_GENERATION={generation} of {daemon.home.root}"
        while left := processes_with(mark):
            if time.monotonic() > deadline:
                broken.append(f"outlived their daemon: {left}")
                break
            await asyncio.sleep(0.05)
    return broken


def _kill_a_child(daemon: Daemon, chance: random.Random) -> bool:
    """Kill one process that the daemon started; False: it has none yet."""
    assert daemon.process is not None
    processes = sorted(
        int(line.split()[0]) for line in processes_with(f"STORM_FOLDER={daemon.environment['STORM_FOLDER']}")
    )
    children = [pid for pid in processes if pid != daemon.process.pid]
    if not children:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(chance.choice(children), signal.SIGKILL)
    return True


async def _rest(daemon: Daemon, record: Path) -> tuple[WorkflowRun, ...]:
    """All runs, when each has ended, nothing is pending, and every function was called twice since anything was new:
    what the first of the two calls found has its run by the second."""
    before: tuple[WorkflowRun, ...] = ()
    since, quiet_since = time.time(), time.monotonic()
    reasons: Counter[str] = Counter()

    async def look(store: Store) -> tuple[WorkflowRun, ...] | None:
        nonlocal before, since, quiet_since
        calls = _calls(record, since)
        runs, triggers = await store.list(WorkflowRun), await store.list(Trigger)
        busy = [trigger.name for trigger in triggers if trigger.status.pending is not None or trigger.status.active]
        busy += [run.name for run in runs if not run.status.phase.finished]
        busy += [run.name for run in runs if run not in before]
        if busy:
            reasons.update(busy)
            before, since, quiet_since = runs, time.time(), time.monotonic()
            return None
        silent = [name for name, _ in TRIGGERS if calls[name] < 2]
        reasons.update(silent)
        return runs if not silent and time.monotonic() - quiet_since > QUIET else None

    try:
        return await daemon.eventually("rest", look, PATIENCE)
    except pytest.fail.Exception as late:
        pytest.fail(f"no rest: {reasons.most_common(10)}\n{late}")


def _calls(record: Path, since: float) -> Counter[str]:
    """How often each function was called after that moment."""
    lines = (json.loads(line) for line in record.read_text().splitlines())
    return Counter(line["trigger"] for line in lines if line["what"] == "call" and line["time"] > since)
