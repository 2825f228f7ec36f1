"""The process in which trigger functions are called: sync ones in threads, async ones on one loop. Submits nothing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import socket
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any

from cloaca.authoring.context import Context, plain
from cloaca.authoring.trigger import TriggerDefinition, TriggerResult
from cloaca.errors import TriggerResultError
from cloaca.polling.messages import LONGEST_LINE, Ended, Fire, Yielded, answer_line

_MOST_THREADS = 64
_TRACEBACK_LIMIT = 8_192
LONGEST_KEY = 1_024  # characters
CONTEXT_LIMIT = 256 * 1024  # bytes of JSON

Publish = Callable[[tuple[Fire, ...]], None]  # returns when the fires are durable


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
            elif _is_async_generator(definition):
                fires, reason = await _drain_async(definition.function(*arguments), publish)
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
            return _drain(answer, publish)
        return interpret(answer)
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        raise RuntimeError(f"{type(error).__name__}({error})") from error  # must not end the worker


def _drain(answers: Iterator[Any], publish: Publish) -> tuple[tuple[Fire, ...], str]:
    """Go through a generator; what stands after a ``yield`` runs only when what it yielded is durable."""
    reason = ""
    for answer in answers:
        fires, reason = interpret(answer)
        if fires:
            publish(fires)
    return (), reason


async def _drain_async(answers: AsyncIterator[Any], publish: Callable[..., Any]) -> tuple[tuple[Fire, ...], str]:
    reason = ""
    async for answer in answers:
        fires, reason = interpret(answer)
        if fires:
            await publish(fires)
    return (), reason


def interpret(answer: Any) -> tuple[tuple[Fire, ...], str]:
    """(fires, reason of the skip) of one result, a bool or a list of results.

    Raises TriggerResultError for anything else.
    """
    if isinstance(answer, bool):
        return ((Fire(),), "") if answer else ((), "")
    if isinstance(answer, TriggerResult):
        if answer.context is None:
            return (), answer.reason
        return (_fire(answer.context, answer.key),), ""
    if isinstance(answer, Iterable) and not isinstance(answer, (str, bytes, Mapping)):
        parts = [interpret(item) for item in answer]
        return tuple(fire for fires, _ in parts for fire in fires), next((reason for _, reason in parts if reason), "")
    raise TriggerResultError(
        f"the function returned {_shown(answer)}; return cloaca.TriggerResult.fire(context) or "
        "cloaca.TriggerResult.skip()"
    )


def _fire(context: Context, key: str | None) -> Fire:
    if key is not None and len(key) > LONGEST_KEY:
        raise TriggerResultError(
            f"the key {key[:40]!r}… has {len(key)} characters, more than {LONGEST_KEY}: use a hash of it"
        )
    data = plain(context, "the fired context")
    size = len(json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode())
    if size > CONTEXT_LIMIT:
        raise TriggerResultError(
            f"the fired context is {size:,} bytes as JSON, over the limit of {CONTEXT_LIMIT:,}: "
            "store the data elsewhere and fire with a reference to it"
        )
    return Fire(context=data, key=key)


def _shown(answer: Any) -> str:
    return "None" if answer is None else f"{type(answer).__qualname__} {str(answer)[:80]!r}"


def _is_async_generator(definition: TriggerDefinition) -> bool:
    code = getattr(definition.function, "__code__", None)
    return code is not None and bool(code.co_flags & 0x200)


def _describe(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _traceback(error: BaseException) -> str:
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("cloaca."):
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames))
    return text[-_TRACEBACK_LIMIT:]
