"""What a hundred triggers of one package cost at an interval of a second, and how late their functions are called."""

from __future__ import annotations

import asyncio
import statistics
import struct
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from builders import WORKFLOW, archive, declared  # the tests' folder is put on the path above
from daemon import memory, processes, seconds_of_cpu, settled, told
from daemon_process import Daemon

from cloaca.polling.schedule import phase
from cloaca.resources import Trigger
from cloaca.store import open_store

TRIGGERS = 100
INTERVAL = 1.0  # seconds
SECONDS = 30.0

# A call is told by 12 bytes appended to a file: which trigger, and when.
HEAD = f"""{WORKFLOW}
import struct
CALLS = os.open(os.environ["BENCH_CALLS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
"""
FUNCTION = """
@cloaca.trigger(name="watch_{number}", poll_interval="1s", allow_concurrent=True)
def watch_{number}():
    os.write(CALLS, struct.pack("=id", {number}, time.monotonic()))
    return cloaca.TriggerResult.skip()
"""


async def measure() -> dict[str, float]:
    """Every figure, by name."""
    with tempfile.TemporaryDirectory(prefix="cloaca-bench-") as folder:
        calls = Path(folder) / "calls"
        daemon = Daemon(Path(folder) / "home")
        daemon.environment = {"BENCH_CALLS": str(calls)}
        daemon.home.root.mkdir()
        daemon.home.config.write_text("jitter = 0.0\n")  # chance puts off no call, so what is late is our doing
        triggers = [declared(f"watch_{number}", poll_interval="1s") for number in range(TRIGGERS)]
        code = HEAD + "".join(FUNCTION.format(number=number) for number in range(TRIGGERS))
        daemon.start()
        try:
            await daemon.eventually("the daemon", lambda store: asyncio.sleep(0.5, True))
            daemon.deploy(archive(code, triggers=triggers))
            await settled(daemon, TRIGGERS)
            due = await _phases(daemon)
            pids = processes(f"BENCH_CALLS={calls}")
            calls.write_bytes(b"")
            before = seconds_of_cpu(pids)
            await asyncio.sleep(SECONDS)
            busy = seconds_of_cpu(pids) - before
            late = lateness(calls.read_bytes(), due)
            return {
                "triggers_100_lateness_p50_ms": statistics.median(late) * 1000,
                "triggers_100_lateness_p99_ms": sorted(late)[int(len(late) * 0.99)] * 1000,
                "triggers_100_lateness_max_ms": max(late) * 1000,
                "triggers_100_polls_per_s": len(late) / SECONDS,
                "triggers_100_cpu_percent": busy / SECONDS * 100,
                "triggers_100_pss_mib": memory(pids) * 1e6 / 2**20,
            }
        finally:
            daemon.stop()


async def _phases(daemon: Daemon) -> dict[int, float]:
    """When in each second each trigger is due, by its number."""
    store = await open_store(str(daemon.home.database))
    try:
        triggers = await store.list(Trigger)
    finally:
        await store.close()
    return {int(it.spec.name.rpartition("_")[2]): phase(it.metadata.uid, INTERVAL) for it in triggers}


def lateness(calls: bytes, due: dict[int, float]) -> list[float]:
    """Seconds between the time at which each call was due and the call itself. One that is a whole interval late would
    not be seen: the number of calls tells."""
    return [(time - due[number]) % INTERVAL for number, time in struct.iter_unpack("=id", calls)]


def main() -> dict[str, float]:
    """Measure and print."""
    return told(measure())


if __name__ == "__main__":
    main()
