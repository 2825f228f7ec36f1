"""The process that calls functions, in this process: what comes together is answered together, and waits for nobody."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import hostile
import pytest

import cloaca
from cloaca.authoring.trigger import TriggerDefinition
from cloaca.failure import MESSAGE_LIMIT, TRACEBACK_LIMIT
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


@pytest.mark.parametrize("form", ["returns", "async", "yields", "async, yields"])
async def test_a_function_that_raises_anything_has_its_error_at_once(form: str) -> None:
    """No exception is so odd that the answer does not come, or does not fit into one line."""

    def function(state: cloaca.Context) -> bool:
        raise hostile.exception(state["kind"])

    async def asynchronous(state: cloaca.Context) -> bool:
        raise hostile.exception(state["kind"])

    def generator(state: cloaca.Context) -> Iterator[cloaca.TriggerResult]:
        yield cloaca.TriggerResult.skip()
        raise hostile.exception(state["kind"])

    async def async_generator(state: cloaca.Context) -> AsyncIterator[cloaca.TriggerResult]:
        yield cloaca.TriggerResult.skip()
        raise hostile.exception(state["kind"])

    functions = {"returns": function, "async": asynchronous, "yields": generator, "async, yields": async_generator}
    async with worker(functions[form]) as peer:
        for kind in hostile.EXCEPTIONS:
            peer.ask(functions[form].__name__, kind=kind)
            ended = await peer.hear()
            assert isinstance(ended, Ended)
            assert ended.error, kind
            assert ended.traceback, kind
            assert len(ended.error) <= MESSAGE_LIMIT
            assert len(ended.traceback) <= TRACEBACK_LIMIT
            json.dumps([ended.error, ended.traceback], ensure_ascii=False).encode()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_a_function_that_answers_anything_has_its_error_at_once(is_async: bool) -> None:
    def function(state: cloaca.Context) -> Any:
        value = hostile.VALUES[state["kind"]]()
        match state["where"]:
            case "answer":
                return value
            case "reason":
                return cloaca.TriggerResult.skip(value)
            case "context":
                return cloaca.TriggerResult.fire({"value": value})
            case "behind the context":
                result = cloaca.TriggerResult.fire()
                assert result.context is not None
                result.context._data["value"] = value
                return result
            case "key":
                return cloaca.TriggerResult(cloaca.Context(), value, "")
        state._data["value"] = value
        return False

    async def asynchronous(state: cloaca.Context) -> Any:
        return function(state)

    right = {("a lone surrogate", "reason"): "caf\\udce9.csv"}  # escaped
    asked = asynchronous if is_async else function
    async with worker(asked) as peer:
        for kind in hostile.VALUES:
            for where in ("answer", "reason", "context", "behind the context", "key", "state"):
                peer.ask(asked.__name__, kind=kind, where=where)
                ended = await peer.hear()
                assert isinstance(ended, Ended)
                if (kind, where) in right:
                    assert (ended.error, ended.reason) == (None, right[kind, where])
                else:
                    assert ended.error, (kind, where)
                    assert ended.fires == ()
                    json.dumps(ended.error, ensure_ascii=False).encode()


async def test_keys_and_reasons_are_what_every_store_can_keep() -> None:
    def odd_key() -> cloaca.TriggerResult:
        return cloaca.TriggerResult(cloaca.Context(), hostile.OddString("odd"), "")

    def no_utf8() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.fire(key="caf\udce9.csv")

    def nul() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.fire({"n": "a\x00b"}, key="a\x00b")

    def long_reason() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.skip("why \x1b " * 1_000_000 + "not")

    async with worker(odd_key, no_utf8, nul, long_reason) as peer:
        peer.ask("odd_key", "no_utf8", "nul", "long_reason")
        ended = await peer.ended(4)
    assert ended[1].fires == (Fire(key="odd"),)
    assert ended[2].error == (
        "TriggerResultError: the key 'caf\\udce9.csv' holds a lone surrogate, as the name of a file does that is not "
        "UTF-8: use a hash of it, such as hashlib.sha256(os.fsencode(name)).hexdigest()"
    )
    assert ended[3].fires == (Fire(context={"n": "a\x00b"}, key="a\x00b"),)
    assert ended[4].error is None
    assert ended[4].reason.startswith("why \\x1b why")
    assert ended[4].reason.endswith("not")
    assert len(ended[4].reason) <= 1_000


async def test_a_state_that_somebody_else_spoilt_is_an_error_at_once() -> None:
    def function(state: cloaca.Context) -> bool:
        return False

    async with worker(function) as peer:
        peer.ask("function", rows=hostile.deep(200))
        ended = (await peer.ended(1))[1]
    assert (ended.error or "").startswith("ContextError: context value 'rows'[0][0]")
    assert "is nested deeper than 100 levels" in (ended.error or "")


async def test_an_answer_that_is_too_long_for_the_channel_is_an_error_of_its_poll() -> None:
    def floods() -> list[cloaca.TriggerResult]:
        return [cloaca.TriggerResult.fire({"rows": "x" * 262_000}) for _ in range(260)]

    async with worker(floods) as peer:
        peer.ask("floods")
        ended = (await peer.ended(1))[1]
    assert ended.fires == ()
    assert (ended.error or "").startswith("the function returned 260 fires of 68,")
    assert (ended.error or "").endswith("over the limit of 67,108,864 for one answer: yield them, a part at a time")


async def test_a_state_over_the_limit_is_an_error_of_the_poll() -> None:
    def grows(state: cloaca.Context) -> bool:
        state.set("rows", "x" * 300_000)
        return False

    async with worker(grows) as peer:
        peer.ask("grows")
        ended = (await peer.ended(1))[1]
    assert ended.error == (
        "TriggerResultError: the state is 300,011 bytes as JSON, over the limit of 262,144: "
        "store the data elsewhere and keep a reference to it"
    )


def test_calls_that_come_together_are_made_in_one_thread() -> None:
    callers, threads, over = Callers(8, name="t"), set(), threading.Event()
    callers.add([lambda: threads.add(threading.get_ident())] * 50 + [over.set])
    assert over.wait(PATIENCE)
    assert len(threads) == 1
    assert not callers.help()
