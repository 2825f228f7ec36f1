"""The process in which trigger functions are called: sync ones in threads, async ones on one loop. Submits nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextvars import Context as Variables
from contextvars import copy_context
from functools import partial
from typing import Any, NoReturn

from cloaca.authoring.context import Context
from cloaca.authoring.trigger import TriggerDefinition
from cloaca.errors import ContextError
from cloaca.failure import failure_of, one_line
from cloaca.packages.context_variables import fresh
from cloaca.packages.process import leave
from cloaca.polling.answers import drain, drain_async, interpret, is_async_generator, kept_state
from cloaca.polling.callers import Callers
from cloaca.polling.messages import LONGEST_LINE, Ended, Fire, Yielded, answer_line

HELD_UP = 0.005
"""Seconds that functions which came due together may take, one after the other, before further threads help."""
_MOST_THREADS = 64
_LAST_WORDS = 1.0  # seconds
_EXIT_GRACE = 1.0  # seconds that exit handlers get; whoever closes the channel may kill this process before

log = logging.getLogger("cloaca.polling")


def work(channel: socket.socket, triggers: Mapping[str, TriggerDefinition]) -> NoReturn:
    """Answer the requests that come over ``channel`` until its other end is closed; then end this process.

    Whatever still runs then is given up: a generator whose fire was not acknowledged must not go on.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    serving = loop.create_task(_Worker(triggers).serve(channel))
    while not serving.done():
        try:
            loop.run_until_complete(serving)
        except SystemExit as error:  # of a task that a function left in the background: asyncio lets it through
            log.warning("a task in the background of a trigger raised %s", one_line(failure_of(error).message))
    loop.run_until_complete(_wind_down())
    leave(0, _EXIT_GRACE)


async def _wind_down() -> None:
    """Let async functions that are given up clean up."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=_LAST_WORDS)


class _Worker(asyncio.Protocol):
    """Takes requests as they come, and answers together what ended together: each awakening costs more than a call."""

    def __init__(self, triggers: Mapping[str, TriggerDefinition]) -> None:
        self._triggers = triggers
        self._variables = copy_context()  # with what the package set when it was imported
        self._callers = Callers(min(max(len(triggers), 4), _MOST_THREADS), name="cloaca-poll")
        self._acks: dict[int, asyncio.Future[None]] = {}
        self._polls: set[asyncio.Task[None]] = set()
        self._buffer = b""
        self._answers: deque[bytes] = deque()  # not sent yet
        self._sending = False  # somebody asked for that
        self._watch: asyncio.TimerHandle | None = None

    async def serve(self, channel: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        transport, _ = await self._loop.create_connection(lambda: self, sock=channel)
        self._writer = transport
        try:
            await self._closed
        finally:
            transport.close()

    # --- the channel

    def data_received(self, data: bytes) -> None:
        """Of asyncio: requests and acknowledgements, those that were said together in one piece."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        calls = []
        for line in lines:
            message = json.loads(line)
            if "ack" in message:
                waiting = self._acks.pop(message["ack"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)
            elif (call := self._begin(message)) is not None:
                calls.append(call)
        if calls:
            self._callers.add(calls)
            self._watch = self._watch or self._loop.call_later(HELD_UP, self._look)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # of asyncio: the other end is gone
        """Of asyncio."""
        if not self._closed.done():
            self._closed.set_result(None)

    def _begin(self, message: dict[str, Any]) -> Callable[[], None] | None:
        """Start an async function; the call of another one is returned, for a thread."""
        definition = self._triggers.get(message["trigger"])
        if definition is None:
            known = ", ".join(sorted(self._triggers)) or "none"
            error = f"the package has no trigger {message['trigger']!r}; it has: {known}"
            self._answer(Ended(id=message["poll"], error=error))
            self._send_soon()
            return None
        try:
            poll = _Poll(self, message, definition)
        except ContextError as error:  # somebody wrote a state that is none
            self._answer(Ended(id=message["poll"], error=failure_of(error).message))
            self._send_soon()
            return None
        variables = fresh(self._variables)
        if not definition.is_async and not is_async_generator(definition):
            return partial(self._in_thread, poll, variables)
        self._start(poll, poll.call, variables)
        return None

    def _start(self, poll: _Poll, call: Callable[[], Any], variables: Variables) -> None:
        """Have ``call`` made on the loop, and what it returns awaited there."""
        task = variables.run(self._loop.create_task, self._on_loop(poll, call))
        self._polls.add(task)
        task.add_done_callback(self._polls.discard)

    # --- answers

    def _answer(self, answer: Ended) -> None:
        line = answer_line(answer)
        if len(line) >= LONGEST_LINE:
            error = (
                f"the function returned {len(answer.fires):,} fires of {len(line):,} bytes as JSON, over the limit of "
                f"{LONGEST_LINE:,} for one answer: yield them, a part at a time"
            )
            line = answer_line(Ended(id=answer.id, error=error))
        self._answers.append(line)

    def _send_soon(self) -> None:
        """Send, after what else this turn of the loop brings."""
        if not self._sending:
            self._sending = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._sending = False  # first: who answers from now on asks anew
        answers = [self._answers.popleft() for _ in range(len(self._answers))]  # threads add to it meanwhile
        if answers:
            self._writer.write(b"".join(answers))
        if self._watch is not None and not self._callers.waiting:
            self._watch.cancel()
            self._watch = None

    def _look(self) -> None:
        """A function takes long: what others answered goes out, and what waits behind it gets another thread."""
        held_up = self._callers.help()
        self._watch = self._loop.call_later(HELD_UP, self._look) if held_up else None
        self._send()

    # --- functions

    async def _on_loop(self, poll: _Poll, call: Callable[[], Any]) -> None:
        self._answer(await poll.on_loop(call))
        self._send_soon()

    def _in_thread(self, poll: _Poll, variables: Variables) -> None:
        answer = variables.run(poll.in_thread)
        if not isinstance(answer, Ended):  # of an async function behind a sync decorator, or in a partial
            self._loop.call_soon_threadsafe(self._start, poll, lambda: answer, variables)
            return
        self._answer(answer)
        if (answer.fires or answer.error is not None or not self._callers.waiting) and not self._sending:
            self._sending = True
            self._loop.call_soon_threadsafe(self._send)

    async def publish(self, poll: _Poll, fires: tuple[Fire, ...]) -> None:
        """Return when what a generator yielded is durable."""
        durable: asyncio.Future[None] = self._loop.create_future()
        self._acks[poll.id] = durable
        self._answers.append(answer_line(Yielded(id=poll.id, fires=fires, state=poll.kept())))
        self._send_soon()
        await durable

    def publish_from_thread(self, poll: _Poll, fires: tuple[Fire, ...]) -> None:
        """The same, for a thread."""
        asyncio.run_coroutine_threadsafe(self.publish(poll, fires), self._loop).result()


class _Poll:
    """One call of a function."""

    def __init__(self, worker: _Worker, message: dict[str, Any], definition: TriggerDefinition) -> None:
        self.id: int = message["poll"]
        self._worker = worker
        self._definition = definition
        self._state = Context(message["state"])
        given = {"config": message["config"], "state": self._state}
        self._arguments = [given[name] for name in definition.arguments]

    def kept(self) -> dict[str, Any] | None:
        """What the function keeps as its state; None: it keeps none."""
        return kept_state(self._state) if "state" in self._definition.arguments else None

    def call(self) -> Any:
        """What the function returns."""
        return self._definition.function(*self._arguments)

    async def on_loop(self, call: Callable[[], Any]) -> Ended:
        """The answer of an async function or generator. ``call``: gives what the function returned."""
        try:
            answer = call()
            fires: tuple[Fire, ...] = ()
            if isinstance(answer, AsyncIterator):
                reason = await drain_async(answer, partial(self._worker.publish, self))
            else:
                fires, reason = interpret(await answer)
            return Ended(id=self.id, fires=fires, state=self.kept(), reason=reason)
        except BaseException as error:  # noqa: BLE001  # whatever user code raises, a CancelledError of its own too
            return self._failed(error)

    def in_thread(self) -> Ended | Awaitable[Any] | AsyncIterator[Any]:
        """The answer of any other function; or what it returned, where that belongs on the loop."""
        try:
            answer = self.call()
            fires: tuple[Fire, ...] = ()
            if isinstance(answer, (Awaitable, AsyncIterator)):
                return answer
            if isinstance(answer, Iterator):
                reason = drain(answer, partial(self._worker.publish_from_thread, self))
            else:
                fires, reason = interpret(answer)
            return Ended(id=self.id, fires=fires, state=self.kept(), reason=reason)
        except BaseException as error:  # noqa: BLE001  # SystemExit too: it must not end the worker
            return self._failed(error)

    def _failed(self, error: BaseException) -> Ended:
        failure = failure_of(error)
        return Ended(id=self.id, error=failure.message, traceback=failure.traceback)
