"""Slots: taken, given back, and waited for in order."""

from __future__ import annotations

import threading

from cloaca.engine.slots import Slots


def test_no_more_are_taken_than_there_are() -> None:
    slots = Slots(2)
    assert [slots.take(), slots.take(), slots.take()] == [True, True, False]
    slots.give()
    assert slots.take()


def test_who_waits_is_granted_one_in_order_and_nobody_overtakes() -> None:
    slots = Slots(1)
    granted: list[str] = []
    assert slots.take()
    assert not slots.take(lambda: granted.append("first"))
    assert not slots.take(lambda: granted.append("second"))
    slots.give()
    assert (granted, slots.take(), slots.free) == (["first"], False, 0)
    slots.give()
    slots.give()
    assert (granted, slots.free) == (["first", "second"], 1)


def test_who_waits_no_longer_is_granted_none() -> None:
    slots = Slots(1)
    granted: list[str] = []

    def grant() -> None:
        granted.append("it")

    assert slots.take()
    assert not slots.take(grant)
    assert slots.withdraw(grant)
    slots.give()
    assert (granted, slots.free, slots.withdraw(grant)) == ([], 1, False)


def test_threads_that_take_and_give_lose_none() -> None:
    slots = Slots(3)
    most: list[int] = []
    held: list[int] = []

    def work() -> None:
        for _ in range(200):
            granted = threading.Event()
            if not slots.take(granted.set):
                assert granted.wait(10)
            held.append(1)
            most.append(len(held))
            held.pop()
            slots.give()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (slots.free, max(most) <= 3) == (3, True)
