"""What a poll function answers, made into fires: a result, a list of them, or a generator. Submits nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Mapping
from typing import Any

from cloaca.authoring.context import CONTEXT_LIMIT, Context, plain
from cloaca.authoring.trigger import TriggerDefinition, TriggerResult
from cloaca.errors import TriggerResultError
from cloaca.failure import class_name, plain_text, shown
from cloaca.polling.messages import Fire

LONGEST_KEY = 1_024  # characters
LONGEST_REASON = 1_000  # characters that are kept of why a poll skipped

Publish = Callable[[tuple[Fire, ...]], None]  # returns when the fires are durable


def drain(answers: Iterator[Any], publish: Publish) -> str:
    """Go through a generator; what stands after a ``yield`` runs only when what it yielded is durable.

    Returns the reason of the last skip.
    """
    reason = ""
    try:
        for answer in answers:
            fires, reason = interpret(answer)
            if fires:
                publish(fires)
    finally:
        if isinstance(answers, Generator):
            answers.close()  # at its yield, where a fire was refused
    return reason


async def drain_async(answers: AsyncIterator[Any], publish: Callable[[tuple[Fire, ...]], Awaitable[None]]) -> str:
    """As ``drain``, of an async generator."""
    reason = ""
    try:
        async for answer in answers:
            fires, reason = interpret(answer)
            if fires:
                await publish(fires)
    finally:
        if isinstance(answers, AsyncGenerator):
            await answers.aclose()
    return reason


def interpret(answer: Any) -> tuple[tuple[Fire, ...], str]:
    """(fires, reason of the skip) of one result, a bool or a list of results.

    Raises TriggerResultError for anything else. It may call user code: the answer's own.
    """
    if isinstance(answer, bool):
        return ((Fire(),), "") if answer else ((), "")
    if isinstance(answer, TriggerResult):
        if answer.context is None:
            return (), _reason(answer.reason)
        return (_fire(answer.context, answer.key),), ""
    if isinstance(answer, Iterable) and not isinstance(answer, (str, bytes, Mapping)):
        parts = [interpret(item) for item in answer]
        return tuple(fire for fires, _ in parts for fire in fires), next((reason for _, reason in parts if reason), "")
    raise TriggerResultError(
        f"the function returned {_shown(answer)}; return cloaca.TriggerResult.fire(context) or "
        "cloaca.TriggerResult.skip()"
    )


def _reason(reason: Any) -> str:
    if not isinstance(reason, str):
        raise TriggerResultError(
            f"the reason of a skip is of type {class_name(reason)}: write TriggerResult.skip() or a string in it"
        )
    return plain_text(reason, LONGEST_REASON)


def _key(key: str | None) -> str | None:
    """``key`` where every store can keep it."""
    if key is None:
        return None
    if not isinstance(key, str):
        raise TriggerResultError(f"the key {shown(key)} is of type {class_name(key)}: a key is a string")
    key = str.__str__(key)
    if len(key) > LONGEST_KEY:
        raise TriggerResultError(
            f"the key {shown(key[:40])}… has {len(key)} characters, more than {LONGEST_KEY}: use a hash of it"
        )
    try:
        key.encode()
    except UnicodeEncodeError:
        raise TriggerResultError(
            f"the key {shown(key)} holds a lone surrogate, as the name of a file does that is not UTF-8: "
            "use a hash of it, such as hashlib.sha256(os.fsencode(name)).hexdigest()"
        ) from None
    return key


def _fire(context: Context, key: str | None) -> Fire:
    key = _key(key)
    data = plain(context, "the fired context")
    _check_size(data, "the fired context", "fire with a reference to it")
    return Fire(context=data, key=key)


def kept_state(state: Context) -> dict[str, Any]:
    """What is kept of a trigger's ``state``. Raises ContextError and TriggerResultError for what cannot be."""
    data: dict[str, Any] = plain(state, "state")
    _check_size(data, "the state", "keep a reference to it")
    return data


def _check_size(data: Any, what: str, advice: str) -> None:
    size = len(json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode())
    if size > CONTEXT_LIMIT:
        raise TriggerResultError(
            f"{what} is {size:,} bytes as JSON, over the limit of {CONTEXT_LIMIT:,}: "
            f"store the data elsewhere and {advice}"
        )


def _shown(answer: Any) -> str:
    return "None" if answer is None else f"{class_name(answer)} {shown(answer)}"


def is_async_generator(definition: TriggerDefinition) -> bool:
    """Whether calling its function gives an async generator."""
    code = getattr(definition.function, "__code__", None)
    return code is not None and bool(code.co_flags & 0x200)
