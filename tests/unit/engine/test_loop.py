"""A loop that is one of asyncio only once it has to be."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from cloaca.engine.loop import LateLoop, runs_in
from cloaca.engine.timers import Timers


def watched(loop: LateLoop) -> None:
    """Run it; a test that would hang fails instead."""
    hung: list[bool] = []
    late = threading.Timer(30.0, lambda: (hung.append(True), loop.stop()))
    late.start()
    loop.run()
    late.cancel()
    assert not hung


def test_it_calls_back_in_its_own_thread_in_the_order_of_asking() -> None:
    loop = LateLoop()
    called: list[tuple[int, int]] = []

    def ask() -> None:
        for number in range(100):
            loop.call_soon_threadsafe(lambda n=number: called.append((n, threading.get_ident())))
        loop.stop()

    threading.Thread(target=ask).start()
    watched(loop)
    assert called == [(number, threading.get_ident()) for number in range(100)]
    assert loop.asyncio is None


@pytest.mark.parametrize("of_asyncio", [False, True])
def test_alarms_ring_in_time_and_cancelled_ones_never(of_asyncio: bool) -> None:
    loop, rang = LateLoop(), []
    timers = Timers(loop)
    began = time.monotonic()
    for name, seconds in (("second", 0.04), ("never", 0.03), ("first", 0.02)):
        timer = timers.after(seconds, lambda name=name: rang.append((name, time.monotonic() - began)))
        if name == "never":
            timer.cancel()
    timers.after(0.06, loop.stop)
    if of_asyncio:
        loop.call_soon_threadsafe(lambda: loop.create_task(asyncio.sleep(0)))
    watched(loop)
    assert [name for name, _ in rang] == ["first", "second"]
    assert rang[0][1] >= 0.02
    assert rang[1][1] >= 0.04
    assert (loop.asyncio is not None) is of_asyncio


def test_a_task_runs_and_what_was_set_before_goes_on() -> None:
    loop = LateLoop()
    said: list[object] = []

    async def work() -> None:
        said.append(runs_in(loop))
        await asyncio.sleep(0.01)
        said.append("slept")

    loop.call_at(loop.time() + 0.05, said.append, "an alarm from before")
    loop.call_at(loop.time() + 0.07, loop.stop)
    loop.call_soon_threadsafe(lambda: loop.create_task(work()))
    loop.call_soon_threadsafe(lambda: said.append(runs_in(loop)))
    watched(loop)
    assert said[0] is False
    assert said[1:] == [True, "slept", "an alarm from before"]


def test_what_others_ask_while_it_becomes_one_of_asyncio_is_not_lost() -> None:
    for _ in range(50):
        loop = LateLoop()
        called: list[int] = []

        def ask(loop: LateLoop = loop, called: list[int] = called) -> None:
            for number in range(200):
                loop.call_soon_threadsafe(called.append, number)
            loop.stop()

        asking = threading.Thread(target=ask)
        loop.call_soon_threadsafe(lambda loop=loop: loop.create_task(asyncio.sleep(0)))
        asking.start()
        watched(loop)
        asking.join()
        loop._work_off()  # stopped before its last turn, perhaps: all of it is there
        assert called == list(range(200))


def test_what_still_runs_when_it_is_stopped_may_clean_up() -> None:
    loop, ended = LateLoop(), []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    loop.call_soon_threadsafe(lambda: loop.create_task(work()))
    threading.Timer(0.05, loop.stop).start()
    watched(loop)
    assert ended == [True]


@pytest.mark.parametrize("of_asyncio", [False, True])
def test_a_handler_of_a_signal_may_call_it(of_asyncio: bool) -> None:
    loop = LateLoop()
    before = signal.signal(signal.SIGUSR1, lambda *_: loop.call_soon_threadsafe(loop.stop))
    try:
        if of_asyncio:
            loop.call_soon_threadsafe(lambda: loop.create_task(asyncio.sleep(0)))
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        began = time.monotonic()
        watched(loop)
        assert time.monotonic() - began < 20
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_it_loads_asyncio_for_the_first_task_only() -> None:
    code = """
import sys
from cloaca.engine.loop import LateLoop, runs_in
loop = LateLoop()
assert not runs_in(loop)
loop.call_at(loop.time(), loop.stop)
loop.run()
assert "asyncio" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
