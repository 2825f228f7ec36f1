"""What a poller and its workers say to each other: one JSON object a line. Values only."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from cloaca.failure import last_lines, plain_text

LONGEST_LINE = 64 * 1024 * 1024  # bytes; a tick may carry many fires of up to 256 KiB each
_LONGEST_ERROR = 4_096  # characters
_LONGEST_TRACEBACK = 16_384


@dataclass(frozen=True, kw_only=True)
class Request:
    """Call a trigger function."""

    id: int
    trigger: str
    config: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fire:
    """One fire that a function returned or yielded."""

    context: dict[str, Any] = field(default_factory=dict)
    key: str | None = None  # None: one run for each such fire


@dataclass(frozen=True, kw_only=True)
class Yielded:
    """A generator yielded ``fires``; it goes on when they are durable (and an acknowledgement says so)."""

    id: int
    fires: tuple[Fire, ...]
    state: dict[str, Any] | None = None  # None: the function keeps no state


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The function ended. ``error`` is None where it ended well."""

    id: int
    fires: tuple[Fire, ...] = ()
    state: dict[str, Any] | None = None
    reason: str = ""  # of a skip
    error: str | None = None
    traceback: str | None = None


_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)  # json.dumps would make one for each line


def encode(message: dict[str, Any]) -> bytes:
    """One line."""
    return _ENCODER.encode(message).encode() + b"\n"


def request_line(request: Request) -> bytes:
    """The line that asks a worker to poll."""
    return encode({"poll": request.id, "trigger": request.trigger, "config": request.config, "state": request.state})


def ack_line(request_id: int) -> bytes:
    """The line that lets a generator go on."""
    return encode({"ack": request_id})


def fires_json(fires: tuple[Fire, ...]) -> list[dict[str, Any]]:
    """``fires`` as JSON values."""
    return [{"context": fire.context, "key": fire.key} for fire in fires]


def answer_line(answer: Yielded | Ended) -> bytes:
    """The line that a worker answers with."""
    message: dict[str, Any] = {"id": answer.id, "fires": fires_json(answer.fires), "state": answer.state}
    if isinstance(answer, Ended):
        message |= {"reason": answer.reason, "error": answer.error, "traceback": answer.traceback, "ended": True}
    return encode(message)


def parse_answer(line: bytes) -> Yielded | Ended:
    """What a worker answered. Raises ValueError, KeyError or TypeError for what no worker of ours writes.

    User code runs in the worker and may write there too: texts are cut, and made plain, once more.
    """
    message = json.loads(line)
    fires = tuple(Fire(context=dict(item["context"]), key=item["key"]) for item in message["fires"])
    if not message.get("ended"):
        return Yielded(id=int(message["id"]), fires=fires, state=message["state"])
    return Ended(
        id=int(message["id"]),
        fires=fires,
        state=message["state"],
        reason=plain_text(message["reason"], _LONGEST_ERROR),
        error=None if message["error"] is None else plain_text(message["error"], _LONGEST_ERROR),
        traceback=None if message["traceback"] is None else _plain_traceback(message["traceback"]),
    )


def _plain_traceback(text: str) -> str:
    return last_lines(plain_text(text, max(len(text), 100)), _LONGEST_TRACEBACK)
