"""The threads of sync tasks: bounded, used again, and no hindrance to the end of the program."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import wait

import pytest

from cloaca.engine.threads import DaemonThreads


def test_a_result_and_an_error_come_back() -> None:
    threads = DaemonThreads(1)

    assert threads.submit(divmod, 7, 2).result(10) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 1, 0).result(10)
    threads.shutdown()


def test_there_are_never_more_threads_than_allowed() -> None:
    threads = DaemonThreads(3)
    seen = set()

    def work() -> None:
        seen.add(threading.get_ident())
        time.sleep(0.001)

    wait([threads.submit(work) for _ in range(60)])
    threads.shutdown()

    assert len(seen) == 3


def test_a_thread_that_is_idle_is_used_again() -> None:
    threads = DaemonThreads(50)
    seen = set()
    for _ in range(20):
        seen.add(threads.submit(threading.get_ident).result(10))
        time.sleep(0.002)
    threads.shutdown()

    assert len(seen) < 20


def test_jobs_from_many_threads_are_all_done() -> None:
    threads = DaemonThreads(8)
    done: list[int] = []

    def submit_many(start: int) -> None:
        wait([threads.submit(done.append, start + n) for n in range(200)])

    callers = [threading.Thread(target=submit_many, args=(start * 200,)) for start in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    threads.shutdown()

    assert sorted(done) == list(range(1600))


def test_after_shutdown_nothing_is_taken_and_the_threads_end() -> None:
    threads = DaemonThreads(2, name="ending")
    threads.submit(int).result(10)
    threads.shutdown()

    with pytest.raises(RuntimeError, match="shut down"):
        threads.submit(int)
    deadline = time.monotonic() + 10
    while any(thread.name.startswith("ending") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_job_that_hangs_does_not_keep_the_interpreter() -> None:
    code = """
import threading
from cloaca.engine.threads import DaemonThreads
begun = threading.Event()
DaemonThreads(1).submit(lambda: begun.set() or threading.Event().wait())
begun.wait()
print("over", flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "over\n", "")
