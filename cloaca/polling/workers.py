"""Which process calls which trigger function: one for all, and one of its own for a trigger that hangs or crashes."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cloaca.polling.messages import Ended, Fire, Request, ack_line, parse_answer, request_line

log = logging.getLogger("cloaca.polling")

CLEAN_POLLS = 10  # after which an offender polls in the shared worker again
MEASURED_EVERY = 0.25  # seconds between two looks at a worker's memory
WORKER_MEMORY = 512 * 1024 * 1024  # bytes that a worker may have resident between two polls

Publish = Callable[[tuple[Fire, ...], "dict[str, Any] | None"], Awaitable[None]]


class WorkerProcess(Protocol):
    """A process that runs ``cloaca.polling.worker.work``."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def kill(self) -> None:
        """End it and everything that it started, now. Idempotent."""
        ...

    async def wait(self) -> str:
        """Return when it has ended, with words for a person: ``exit code 3``, ``signal 9 (SIGKILL)``."""
        ...

    def memory(self) -> int:
        """Bytes that it has resident; 0 where the system does not tell."""
        ...


StartWorker = Callable[[], Awaitable[WorkerProcess]]


class PollFailed(Exception):
    """The function gave no answer: it took too long, or took its process down. The message says which."""


class PollInterrupted(Exception):
    """The process was taken down while several functions ran in it: make the poll again, from the state as it is now.

    What the function had yielded before is not taken back by that: a state from before it would fire it again.
    """


class _WorkerDied(Exception):
    """The process went away while it was called. ``alone``: nothing else was being called in it."""

    def __init__(self, how: str, *, alone: bool) -> None:
        super().__init__(how)
        self.alone = alone


class Workers:
    """The worker processes of one package, started when they are needed."""

    def __init__(self, start: StartWorker, *, memory: int = WORKER_MEMORY) -> None:
        """``memory``: bytes; a worker that has more resident after a poll is replaced when no poll is under way in it.
        It may always have twice what its first poll left, so that a package that needs much is not started for ever."""
        self._start = start
        self._memory = memory
        self._shared: _Link | None = None
        self._own: dict[str, _Link | None] = {}  # offenders; None: to be started at the next poll
        self._clean: dict[str, int] = {}
        self._retired: set[_Link] = set()
        self._starting = asyncio.Lock()

    async def poll(
        self, trigger: str, config: dict[str, Any], state: dict[str, Any], timeout: float, publish: Publish
    ) -> Ended:
        """Call the function of ``trigger`` once. ``publish`` is awaited for what a generator yields, then it goes on.

        Raises PollFailed where it takes longer than ``timeout`` seconds (between two yields, for a generator), or takes
        its process down, and PollInterrupted, at most once in a row, where it may have been another that did.
        """
        link = await self._link(trigger)
        try:
            ended = await link.call(trigger, config, state, timeout, publish)
        except asyncio.TimeoutError:
            self._isolate(trigger, link)
            raise PollFailed(f"took longer than its {timeout:g} s and was stopped") from None
        except _WorkerDied as died:
            known_offender = trigger in self._own
            self._isolate(trigger, link)
            if died.alone or known_offender:
                raise PollFailed(f"took its process down: {died}") from None
            raise PollInterrupted(f"its worker died ({died}) while several functions ran in it") from None
        self._relieve(trigger, link)
        self._forgive(trigger)
        return ended

    def close(self) -> None:
        """End every worker now."""
        for link in (self._shared, *self._own.values(), *self._retired):
            if link is not None:
                link.kill()
        self._shared = None
        self._own = dict.fromkeys(self._own)
        self._retired.clear()

    async def _link(self, trigger: str) -> _Link:
        async with self._starting:
            if trigger in self._own:
                own = self._own[trigger]
                if own is None or own.ended:
                    own = self._own[trigger] = _Link(await self._start())
                return own
            if self._shared is None or self._shared.ended:
                self._shared = _Link(await self._start())
            return self._shared

    def _isolate(self, trigger: str, link: _Link) -> None:
        """From now on ``trigger`` has a worker of its own; the one it shared ends when the other polls in it have."""
        self._clean[trigger] = 0
        if self._own.get(trigger) is link:
            link.kill()
        self._own[trigger] = None
        if self._shared is link:
            self._shared = None
            self._retire(link)

    def _relieve(self, trigger: str, link: _Link) -> None:
        """Have the next polls made in a new process where this one has grown too large; what runs in it ends there."""
        grown = link.grown_over(self._memory)
        if not grown or link in self._retired or link.ended:
            return
        log.warning(
            "trigger %s: its worker has grown to %d MiB, over the limit of %d MiB, and is replaced",
            trigger, grown >> 20, self._memory >> 20,
        )  # fmt: skip
        if self._shared is link:
            self._shared = None
        elif self._own.get(trigger) is link:
            self._own[trigger] = None
        self._retire(link)

    def _retire(self, link: _Link) -> None:
        self._retired.add(link)
        link.retire(lambda: self._retired.discard(link))

    def _forgive(self, trigger: str) -> None:
        if trigger not in self._own:
            return
        self._clean[trigger] += 1
        if self._clean[trigger] >= CLEAN_POLLS:
            own = self._own.pop(trigger)
            if own is not None:
                own.kill()


@dataclass
class _Call:
    """One request under way."""

    publish: Publish
    answer: asyncio.Future[Ended]
    publishing: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    seconds: float = 0.0  # that the function may take, up to its end or its next yield

    def limit(self) -> None:
        """The function goes on: it fails with TimeoutError where that takes too long."""
        self.timer = self.answer.get_loop().call_later(self.seconds, self._expire)

    def rest(self) -> None:
        """The function waits for us."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _expire(self) -> None:
        if not self.answer.done():
            self.answer.set_exception(asyncio.TimeoutError())


class _Link:
    """The conversation with one worker process."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process
        self._calls: dict[int, _Call] = {}
        self._ids = itertools.count(1)
        self._on_idle: Callable[[], None] | None = None
        self._unsaid: list[bytes] = []
        self._measure_at = float("-inf")
        self._first_memory = 0  # bytes resident after the first poll; 0: not measured yet
        self.ended = False
        self._listening = asyncio.get_running_loop().create_task(self._listen())

    async def call(
        self, trigger: str, config: dict[str, Any], state: dict[str, Any], timeout: float, publish: Publish
    ) -> Ended:
        loop = asyncio.get_running_loop()
        request_id = next(self._ids)
        call = self._calls[request_id] = _Call(publish, loop.create_future(), seconds=timeout)
        try:
            self._say(request_line(Request(id=request_id, trigger=trigger, config=config, state=state)))
            call.limit()
            return await call.answer
        finally:
            call.rest()
            del self._calls[request_id]
            if call.publishing is not None:
                call.publishing.cancel()
            if call.answer.done() and not call.answer.cancelled():
                call.answer.exception()  # retrieved, so that asyncio does not complain
            if not self._calls and self._on_idle is not None:
                self._on_idle()

    def _say(self, line: bytes) -> None:
        """Send it with all else that is said in this turn of the loop: polls come due together, and each awakening of
        the worker costs more than a call."""
        if not self._unsaid:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsaid.append(line)

    def _flush(self) -> None:
        self._process.writer.write(b"".join(self._unsaid))
        self._unsaid.clear()

    def kill(self) -> None:
        self.ended = True
        self._process.kill()

    def grown_over(self, limit: int) -> int:
        """Bytes that are resident, where that is over ``limit`` and over twice what the first poll left; else 0, also
        where it was measured a moment ago."""
        time = asyncio.get_running_loop().time()
        if time < self._measure_at:
            return 0
        self._measure_at = time + MEASURED_EVERY
        now = self._process.memory()
        self._first_memory = self._first_memory or now
        return now if now > max(limit, 2 * self._first_memory) else 0

    def retire(self, then: Callable[[], None]) -> None:
        """Kill the process as soon as nothing is being called in it."""

        def idle() -> None:
            self.kill()
            then()

        self._on_idle = idle
        if not self._calls:
            idle()

    async def _listen(self) -> None:
        reader = self._process.reader
        try:
            while line := await reader.readline():
                self._heard(parse_answer(line))
        except OSError:
            pass  # it is gone, and how is told below
        except (ValueError, KeyError, TypeError) as error:
            log.warning("a worker said what no worker says, and is stopped: %s", error)
        self.ended = True
        self._process.kill()
        how = await self._process.wait()
        self._process.writer.close()
        alone = len(self._calls) == 1
        for call in self._calls.values():
            if not call.answer.done():
                call.answer.set_exception(_WorkerDied(how, alone=alone))

    def _heard(self, answer: Any) -> None:
        call = self._calls.get(answer.id)
        if call is None:
            return  # of a poll that was given up
        if isinstance(answer, Ended):
            if not call.answer.done():
                call.answer.set_result(answer)
            return
        call.rest()
        call.publishing = asyncio.get_running_loop().create_task(self._publish(answer.id, call, answer))

    async def _publish(self, request_id: int, call: _Call, answer: Any) -> None:
        try:
            await call.publish(answer.fires, answer.state)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, the poll has failed with it
            if not call.answer.done():
                call.answer.set_exception(error)
        else:
            self._say(ack_line(request_id))
            if request_id in self._calls:
                call.limit()
        finally:
            call.publishing = None
