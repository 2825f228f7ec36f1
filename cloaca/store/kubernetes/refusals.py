"""What an API server's refusals mean to us, and when what it refused may be tried again. Speaks to no server."""

from __future__ import annotations

import json
from typing import Any

from cloaca.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound, StoreError, StoreUnavailable

JSON_PATCH = "application/json-patch+json"
TIMEOUT = 30.0  # seconds for one answer
PAUSES = (0.1, 0.5, 1.5)  # seconds before what may be tried again is
LONGEST_PAUSE = 10.0  # seconds, whatever Retry-After asks for


class Expired(Exception):
    """The resource version is too old: list again."""


class Again(Exception):
    """What may be tried again, and what to raise where it is not."""

    def __init__(self, error: StoreUnavailable, *, untaken: bool, after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.untaken = untaken  # whether a write was certainly not taken
        self.after = after  # seconds

    def pause(self, method: str, planned: float | None) -> float:
        """Seconds until the next try, where ``planned`` were meant to pass. Raises ``error`` where there is none."""
        if planned is None or not (self.untaken or method == "GET"):
            raise self.error from self.__cause__
        return min(self.after or planned, LONGEST_PAUSE)


def away(url: str, said: str) -> StoreUnavailable:
    """The server at ``url`` cannot be reached."""
    return StoreUnavailable(f"the API server {url} cannot be reached: {said}")


def refused(
    code: int, text: bytes, path: str, after: str | None, status: dict[str, Any] | None = None
) -> StoreError | Expired | Again:
    """What a refusal means to us."""
    if status is None:
        try:
            status = json.loads(text)
        except ValueError:
            status = {"message": text[:200].decode(errors="replace").strip()}
    said = str(status.get("message") or f"status {code}") if isinstance(status, dict) else f"status {code}"
    reason = status.get("reason") if isinstance(status, dict) else None
    seconds = float(after) if after is not None and after.isdigit() else None
    match code:
        case 401:
            return StoreUnavailable(f"the API server does not know us ({said}): log in again, or renew the kubeconfig")
        case 403:
            return Forbidden(f"the API server refused {path}: {said}")
        case 404:
            return NotFound(said)
        case 409 if reason == "AlreadyExists":
            return AlreadyExists(said)
        case 409:
            return Conflict(said)
        case 410:
            return Expired(said)
        case 400 | 413 | 422:
            return Invalid(said)
        case 429:
            return Again(StoreUnavailable(f"the API server is busy: {said}"), untaken=True, after=seconds)
        case _ if "request is too large" in said:
            return Invalid(f"{said}: an object has to stay under 1.5 MB")
    return Again(StoreUnavailable(f"the API server failed: {said}"), untaken=False, after=seconds)
