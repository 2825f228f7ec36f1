"""The process that calls functions, in this process: what comes together is answered together, and waits for nobody."""

from __future__ import annotations

import asyncio
import inspect
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import cloaca
from cloaca.authoring.trigger import TriggerDefinition
from cloaca.polling.callers import Callers
from cloaca.polling.messages import Ended, Fire, Request, Yielded, ack_line, parse_answer, request_line
from cloaca.polling.worker import _Worker

PATIENCE = 30.0  # seconds


class Peer:
    """The poller's end of the channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def ask(self, *triggers: str, **state: Any) -> None:
        """Say in one piece that these are to be polled, numbered from 1."""
        requests = (Request(id=id_, trigger=name, state=state) for id_, name in enumerate(triggers, start=1))
        self.writer.write(b"".join(request_line(request) for request in requests))

    async def hear(self) -> Yielded | Ended:
        return parse_answer(await asyncio.wait_for(self.reader.readline(), PATIENCE))

    async def ended(self, count: int) -> dict[int, Ended]:
        answers = [await self.hear() for _ in range(count)]
        return {answer.id: answer for answer in answers if isinstance(answer, Ended)}


def definition(function: Callable[..., Any]) -> TriggerDefinition:
    arguments = ("state",) if "state" in inspect.signature(function).parameters else ()
    is_async = inspect.iscoroutinefunction(function)
    return TriggerDefinition(name=function.__name__, function=function, arguments=arguments, is_async=is_async)


@asynccontextmanager
async def worker(*functions: Callable[..., Any]) -> AsyncIterator[Peer]:
    """A worker with these functions as triggers of their names."""
    ours, theirs = socket.socketpair()
    serving = asyncio.ensure_future(_Worker({it.__name__: definition(it) for it in functions}).serve(theirs))
    reader, writer = await asyncio.open_connection(sock=ours)
    yield Peer(reader, writer)
    writer.close()
    await asyncio.wait_for(serving, PATIENCE)


async def test_a_function_that_hangs_holds_up_none_of_those_that_came_with_it() -> None:
    """All are asked in one piece, the slow ones first; each waits for one that stands behind it."""
    gate, seen = threading.Event(), threading.Event()

    def slow() -> bool:
        return gate.wait(PATIENCE)

    def slower() -> bool:
        return seen.wait(PATIENCE)

    def second() -> bool:
        seen.set()
        return False

    def last() -> bool:
        gate.set()
        return False

    async with worker(slow, slower, second, last) as peer:
        peer.ask("slow", "slower", "second", "last")
        answers = await peer.ended(4)
    assert {number: (len(it.fires), it.error) for number, it in answers.items()} == {
        1: (1, None),
        2: (1, None),
        3: (0, None),
        4: (0, None),
    }


async def test_an_answer_does_not_wait_for_a_slow_function_behind_it() -> None:
    gate = threading.Event()

    def quick() -> bool:
        return False

    def slow() -> bool:
        return gate.wait(PATIENCE)

    async with worker(quick, slow) as peer:
        peer.ask("quick", "slow")
        assert (await peer.hear()).id == 1
        gate.set()
        assert (await peer.hear()).id == 2


async def test_more_slow_functions_than_threads_come_to_their_turn() -> None:
    began = threading.Semaphore(0)
    gate = threading.Event()

    def slow() -> bool:
        began.release()
        return gate.wait(PATIENCE)

    async with worker(slow) as peer:
        peer.ask(*["slow"] * 9)  # four threads
        for _ in range(4):
            assert await asyncio.to_thread(began.acquire, timeout=PATIENCE)
        gate.set()
        assert len(await peer.ended(9)) == 9


async def test_a_generator_goes_on_when_its_fire_is_durable_and_others_end_meanwhile() -> None:
    handed_over: list[str] = []

    def generator(state: cloaca.Context) -> Iterator[cloaca.TriggerResult]:
        state.set("n", 1)
        yield cloaca.TriggerResult.fire({}, key="a")
        handed_over.append("a")

    async def asynchronous() -> AsyncIterator[cloaca.TriggerResult]:
        yield cloaca.TriggerResult.fire({}, key="b")
        handed_over.append("b")

    def quick() -> bool:
        return False

    async with worker(generator, asynchronous, quick) as peer:
        peer.ask("generator", "asynchronous", "quick")
        answers = {(answer := await peer.hear()).id: answer for _ in range(3)}
        assert answers[1] == Yielded(id=1, fires=(Fire(key="a"),), state={"n": 1})
        assert answers[2] == Yielded(id=2, fires=(Fire(key="b"),))
        assert answers[3] == Ended(id=3)
        assert handed_over == []
        peer.writer.write(ack_line(1))
        assert await peer.hear() == Ended(id=1, state={"n": 1})
        assert handed_over == ["a"]
        peer.writer.write(ack_line(2))
        assert await peer.hear() == Ended(id=2)
        assert handed_over == ["a", "b"]


def raises() -> bool:
    raise ValueError("no inbox")


def leaves() -> bool:
    sys.exit(3)


async def leaves_too() -> bool:
    sys.exit(3)


WRONG_REASON = (
    "TriggerResultError: the reason of a skip is of type OSError: write TriggerResult.skip() or a string in it"
)


def says_why() -> cloaca.TriggerResult:
    return cloaca.TriggerResult.skip(OSError("no text"))  # type: ignore[arg-type]  # what people write


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (raises, "ValueError: no inbox"),
        (leaves, "SystemExit: 3"),
        (leaves_too, "SystemExit: 3"),
        (says_why, WRONG_REASON),
    ],
    ids=["raises", "leaves", "leaves, async", "a reason that is no text"],
)
async def test_whatever_a_function_does_is_an_answer(function: Callable[..., Any], error: str) -> None:
    def quick() -> bool:
        return False

    async with worker(function, quick) as peer:
        peer.ask(function.__name__, "quick", "unknown")
        answers = await peer.ended(3)
    assert answers[1].error == error
    assert answers[2].error is None
    assert (answers[3].error or "").startswith("the package has no trigger 'unknown'")


def test_calls_that_come_together_are_made_in_one_thread() -> None:
    callers, threads, over = Callers(8, name="t"), set(), threading.Event()
    callers.add([lambda: threads.add(threading.get_ident())] * 50 + [over.set])
    assert over.wait(PATIENCE)
    assert len(threads) == 1
    assert not callers.help()
