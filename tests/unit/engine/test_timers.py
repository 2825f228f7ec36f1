"""Alarms that ring once, in the loop, unless they are cancelled."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from cloaca.engine.timers import Timers


async def test_alarms_ring_in_the_order_of_their_times_whoever_sets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    timers = Timers(loop)
    rang: list[tuple[str, int]] = []
    over = asyncio.Event()

    def ring(name: str) -> Any:
        return lambda: rang.append((name, threading.get_ident()))

    now = loop.time()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "time", lambda: now)  # all are set at one time, however busy the machine is
        timers.after(0.03, ring("third"))
        setting = threading.Thread(
            target=lambda: [timers.after(0.01, ring("first")), timers.after(0.02, ring("second"))]
        )
        setting.start()
        setting.join()
        timers.after(0.04, over.set)
    await asyncio.wait_for(over.wait(), 10)

    assert rang == [(name, threading.get_ident()) for name in ("first", "second", "third")]


async def test_a_cancelled_alarm_does_not_ring() -> None:
    timers = Timers(asyncio.get_running_loop())
    rang: list[str] = []
    over = asyncio.Event()
    cancelled = timers.after(0.001, lambda: rang.append("cancelled"))
    cancelled.cancel()
    timers.after(0.01, over.set)
    cancelled.cancel()
    await asyncio.wait_for(over.wait(), 10)

    assert rang == []


async def test_an_alarm_may_set_another_one() -> None:
    timers = Timers(asyncio.get_running_loop())
    over = asyncio.Event()
    timers.after(0.001, lambda: timers.after(0.001, over.set))

    await asyncio.wait_for(over.wait(), 10)


async def test_the_loop_is_woken_for_the_earliest_alarm_only(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    timers = Timers(loop)
    woken: list[Any] = []
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *job: woken.append(job))
    for seconds in (300.0, 301.0, 300.5, 299.0, 3600.0):
        timers.after(seconds, lambda: None)

    assert len(woken) == 2


async def test_alarms_that_were_cancelled_are_not_kept() -> None:
    timers = Timers(asyncio.get_running_loop())
    kept = timers.after(300, lambda: None)
    for _ in range(10_000):
        timers.after(300, lambda: None).cancel()

    assert len(timers._heap) < 1_000
    kept.cancel()


def test_after_the_loop_was_closed_nothing_rings_and_nothing_breaks() -> None:
    loop = asyncio.new_event_loop()
    timers = Timers(loop)
    loop.close()
    timers.after(0.001, lambda: None).cancel()

    assert loop.is_closed()
