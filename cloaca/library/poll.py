"""One poll of a trigger of the program itself: its function is called, and a generator waits for what it yields.

Decides nothing about fires: whoever polls makes them durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from cloaca.authoring.context import Context
from cloaca.authoring.trigger import TriggerDefinition, TriggerResult
from cloaca.engine.attempt import call
from cloaca.engine.crew import Crew
from cloaca.errors import CloacaError, TaskTimeout
from cloaca.polling.answers import drain, drain_async, interpret, is_async_generator
from cloaca.polling.messages import Fire


class PollFailed(CloacaError):
    """The function raised, or answered something wrong; the message says what, in plain text."""


class Poll:
    """Calls ``definition``'s function once. ``publish`` returns when the fires are durable. Belongs to the loop."""

    def __init__(
        self, definition: TriggerDefinition, publish: Callable[[tuple[Fire, ...]], Awaitable[None]], crew: Crew
    ) -> None:
        self._definition = definition
        self._publish_to = publish
        self._crew = crew
        self._given: tuple[Any, ...] = tuple({} if name == "config" else Context() for name in definition.arguments)
        self._over = False
        self.running = False  # the function, in a thread: it goes on when the poll is given up
        self.published = 0

    async def run(self, timeout: float) -> None:
        """Return when everything that it fired is durable.

        Raises PollFailed where the function raised or answered something wrong, TaskTimeout when it neither returns nor
        yields for ``timeout`` seconds, and what ``publish`` raises. A function that is given up fires nothing more.
        """
        self._loop = asyncio.get_running_loop()
        is_async = self._definition.is_async or is_async_generator(self._definition)
        function = self._on_loop if is_async else self._in_thread
        calling = self._loop.create_task(call(function, is_async=is_async, crew=self._crew, keep=interpret))
        try:
            while not calling.done():
                before = self.published
                await asyncio.wait({calling}, timeout=timeout)
                if not calling.done() and self.published == before:
                    raise TaskTimeout(f"it neither returned nor yielded within {timeout:g} s")
            ended = calling.result()
        finally:
            self._over = True
            calling.cancel()
        if ended.failure is not None:
            raise PollFailed(ended.failure.message)
        fires, _ = ended.value
        if fires:
            self.published += 1
            await self._publish_to(fires)

    def _in_thread(self) -> Any:
        self.running = True
        try:
            answer = self._definition.function(*self._given)
            if isinstance(answer, AsyncIterator):  # behind a sync decorator, or in a partial
                return self._drained(answer)
            if isinstance(answer, Iterator):
                return TriggerResult.skip(drain(answer, self._publish_from_thread))
            return answer
        finally:
            self.running = False

    async def _on_loop(self) -> Any:
        answer = self._definition.function(*self._given)
        return await (self._drained(answer) if isinstance(answer, AsyncIterator) else answer)

    async def _drained(self, answers: AsyncIterator[Any]) -> TriggerResult:
        return TriggerResult.skip(await drain_async(answers, self._publish))

    async def _publish(self, fires: tuple[Fire, ...]) -> None:
        if self._over:
            raise CloacaError(f"trigger {self._definition.name}: its poll was given up before this fire")
        self.published += 1
        await self._publish_to(fires)

    def _publish_from_thread(self, fires: tuple[Fire, ...]) -> None:
        publishing = self._publish(fires)
        try:
            durable = asyncio.run_coroutine_threadsafe(publishing, self._loop)
        except RuntimeError:  # the loop is closed: the generator ends at its yield
            publishing.close()
            raise
        durable.result()
