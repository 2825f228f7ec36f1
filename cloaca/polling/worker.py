"""The process in which trigger functions are called: sync ones in threads, async ones on one loop. Submits nothing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import socket
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cloaca.authoring.context import Context, plain
from cloaca.authoring.trigger import TriggerDefinition
from cloaca.polling.answers import Publish, drain, drain_async, interpret, is_async_generator
from cloaca.polling.messages import LONGEST_LINE, Ended, Fire, Yielded, answer_line

_MOST_THREADS = 64
_TRACEBACK_LIMIT = 8_192


def work(channel: socket.socket, triggers: Mapping[str, TriggerDefinition]) -> None:
    """Answer the requests that come over ``channel`` until its other end is closed; then leave at once.

    Whatever still runs then is given up: a generator whose fire was not acknowledged must not go on.
    """
    asyncio.run(_Worker(triggers).serve(channel))
    os._exit(0)  # threads of hung functions would keep the interpreter


class _Worker:
    def __init__(self, triggers: Mapping[str, TriggerDefinition]) -> None:
        self._triggers = triggers
        self._pool = concurrent.futures.ThreadPoolExecutor(
            min(max(len(triggers), 4), _MOST_THREADS), thread_name_prefix="cloaca-poll"
        )
        self._acks: dict[int, asyncio.Future[None]] = {}
        self._polls: set[asyncio.Task[None]] = set()

    async def serve(self, channel: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        reader, self._writer = await asyncio.open_connection(sock=channel, limit=LONGEST_LINE)
        while line := await reader.readline():
            message = json.loads(line)
            if "ack" in message:
                waiting = self._acks.pop(message["ack"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)
            else:
                poll = self._loop.create_task(self._poll(message))
                self._polls.add(poll)
                poll.add_done_callback(self._polls.discard)

    async def _poll(self, message: dict[str, Any]) -> None:
        request_id = message["poll"]
        definition = self._triggers.get(message["trigger"])
        if definition is None:
            known = ", ".join(sorted(self._triggers)) or "none"
            error = f"the package has no trigger {message['trigger']!r}; it has: {known}"
            self._writer.write(answer_line(Ended(id=request_id, error=error)))
            return
        state = Context(message["state"])
        given = {"config": message["config"], "state": state}
        arguments = [given[name] for name in definition.arguments]
        keeps_state = "state" in definition.arguments

        def kept() -> dict[str, Any] | None:
            return plain(state, "state") if keeps_state else None

        async def publish(fires: tuple[Fire, ...]) -> None:
            """Return when the fires are durable."""
            durable: asyncio.Future[None] = self._loop.create_future()
            self._acks[request_id] = durable
            self._writer.write(answer_line(Yielded(id=request_id, fires=fires, state=kept())))
            await durable

        def publish_from_thread(fires: tuple[Fire, ...]) -> None:
            asyncio.run_coroutine_threadsafe(publish(fires), self._loop).result()

        try:
            if definition.is_async:
                fires, reason = interpret(await definition.function(*arguments))
            elif is_async_generator(definition):
                fires, reason = (), await drain_async(definition.function(*arguments), publish)
            else:
                fires, reason = await self._loop.run_in_executor(
                    self._pool, _call, definition.function, arguments, publish_from_thread
                )
            answer = Ended(id=request_id, fires=fires, state=kept(), reason=reason)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever user code raises is an error of this poll
            answer = Ended(id=request_id, error=_describe(error), traceback=_traceback(error))
        self._writer.write(answer_line(answer))
        await self._writer.drain()


def _call(function: Callable[..., Any], arguments: list[Any], publish: Publish) -> tuple[tuple[Fire, ...], str]:
    try:
        answer = function(*arguments)
        if isinstance(answer, Iterator):
            return (), drain(answer, publish)
        return interpret(answer)
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        raise RuntimeError(f"{type(error).__name__}({error})") from error  # must not end the worker


def _describe(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _traceback(error: BaseException) -> str:
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("cloaca."):
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames))
    return text[-_TRACEBACK_LIMIT:]
