"""The engine's threads: few at work, more where user code blocks, and no hindrance to the end of the program."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from cloaca.engine.crew import Crew


@pytest.fixture
def crew() -> Iterator[Crew]:
    made = Crew(64)
    yield made
    made.shutdown()


class Tally:
    """Waits until so many jobs were done."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()
        self.done = threading.Event()

    def __call__(self) -> None:
        with self._lock:
            self._left -= 1
            if not self._left:
                self.done.set()


def test_jobs_from_many_threads_are_all_done(crew: Crew) -> None:
    done: list[int] = []
    tally = Tally(1600)

    def submit_many(start: int) -> None:
        for number in range(start, start + 200):
            crew.submit(lambda number=number: (done.append(number), tally()))  # type: ignore[misc]  # only its effects

    callers = [threading.Thread(target=submit_many, args=(start * 200,)) for start in range(8)]
    for caller in callers:
        caller.start()
    assert tally.done.wait(20)

    assert sorted(done) == list(range(1600))


def test_no_more_threads_work_at_once_than_are_to_be_busy() -> None:
    crew = Crew(64, busy=2)
    now: list[int] = []
    most: list[int] = []
    tally = Tally(200)

    def work() -> None:
        now.append(1)
        most.append(len(now))
        time.sleep(0.0005)
        now.pop()
        tally()

    for _ in range(200):
        crew.submit(work)
    assert tally.done.wait(20)
    crew.shutdown()

    assert max(most) == 2


@pytest.mark.parametrize("away", ["waiting", "in user code", "in user code, though the last call was brief"])
def test_those_who_are_away_hold_nobody_up(crew: Crew, away: str) -> None:
    """Each job, while it is away, waits for all the others."""
    together = threading.Barrier(20, timeout=10)
    tally = Tally(20)

    def work() -> None:
        if away == "waiting":
            crew.leave()
            together.wait()
            crew.back()
        else:
            crew.call(together.wait, ())
        tally()

    called = threading.Event()

    def call_before() -> None:
        crew.call(time.sleep, (0.0 if away.endswith("brief") else 0.01,))
        called.set()

    crew.submit(call_before)
    assert called.wait(10)

    for _ in range(20):
        crew.submit(work)

    assert tally.done.wait(20)


def test_there_are_never_more_threads_than_allowed() -> None:
    crew = Crew(3)
    seen: set[int] = set()
    tally = Tally(60)

    def work() -> None:
        crew.leave()
        seen.add(threading.get_ident())
        time.sleep(0.001)
        crew.back()
        tally()

    for _ in range(60):
        crew.submit(work)
    assert tally.done.wait(20)
    crew.shutdown()

    assert len(seen) <= 3


def test_a_thread_that_has_nothing_to_do_is_used_again(crew: Crew) -> None:
    seen: set[int] = set()
    for _ in range(20):
        done = threading.Event()
        crew.submit(lambda done=done: (seen.add(threading.get_ident()), done.set()))  # type: ignore[misc]  # as above
        assert done.wait(10)

    assert len(seen) <= 2


def test_a_job_that_raises_is_logged_and_its_thread_stays(caplog: pytest.LogCaptureFixture) -> None:
    crew, done = Crew(1), threading.Event()
    crew.submit(lambda: 1 / 0)  # type: ignore[arg-type,return-value]  # it returns nothing
    crew.submit(done.set)

    assert done.wait(10)
    assert caplog.messages == ["internal error"]
    crew.shutdown()


def test_after_shutdown_nothing_is_taken_and_the_threads_end() -> None:
    crew = Crew(2, name="ending")
    done = threading.Event()
    crew.submit(done.set)
    assert done.wait(10)
    crew.shutdown()

    with pytest.raises(RuntimeError, match="shut down"):
        crew.submit(done.set)
    deadline = time.monotonic() + 10
    while any(thread.name.startswith("ending") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_job_that_hangs_does_not_keep_the_interpreter() -> None:
    program = """
import threading
from cloaca.engine.crew import Crew
begun = threading.Event()
Crew(1).submit(lambda: begun.set() or threading.Event().wait())
begun.wait()
print("over", flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)

    assert (ended.returncode, ended.stdout) == (0, "over\n"), ended.stderr
