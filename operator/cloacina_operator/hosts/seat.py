"""One daemon a store, where homes and machines share it: a seat in the store, kept by a sign of life.

Who loses it, because it was stalled for long, learns so at its next sign and stops; its writes were conditional.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from datetime import datetime, timezone
from pathlib import Path

from cloaca.errors import AlreadyExists, CloacaError, Conflict, NotFound, StoreUnavailable
from cloaca.library.presence import BEAT, EXPIRY, is_gone, this_process
from cloaca.resources.meta import ObjectMeta
from cloaca.resources.seat import DAEMON, SeatSpec
from cloaca.resources.seat import Seat as SeatObject
from cloaca.store import Store
from cloacina_operator.hosts.lock import AlreadyRunning

log = logging.getLogger("cloacina.daemon")

_LOOK = 0.5  # seconds between two looks for a sign of life


class SeatLost(CloacaError):
    """Another daemon works on the store now."""


class Seat:
    """This daemon's right to work on a store. Belongs to one event loop."""

    def __init__(self, store: Store, mine: SeatObject, beat: float, expiry: float) -> None:
        self._store = store
        self._mine = mine
        self._beat = beat
        self._expiry = expiry

    @classmethod
    async def take(cls, store: Store, home: Path, *, beat: float = BEAT, expiry: float = EXPIRY) -> Seat:
        """Take it, giving a sign of life every ``beat`` seconds from ``keep`` on.

        Raises AlreadyRunning where another daemon lives: it gave a sign within ``expiry`` seconds, or it is a process
        of this machine.
        """
        spec = SeatSpec(**this_process().model_dump(), host=socket.gethostname(), home=str(home))
        while True:
            seen = await store.get(SeatObject, DAEMON)
            if seen is not None and not is_gone(seen.spec) and await _lives(store, seen, spec.machine, expiry):
                raise AlreadyRunning(
                    f"a daemon (process {seen.spec.pid} on {seen.spec.host}, home {seen.spec.home}) works on this "
                    "store already: stop it, or give this one another store, or another schema of the database"
                )
            try:
                if seen is None:
                    mine = await store.create(SeatObject(metadata=ObjectMeta(name=DAEMON), spec=spec))
                else:
                    mine = await store.update(seen.model_copy(update={"spec": spec}))
            except (AlreadyExists, Conflict, NotFound):  # it gave a sign after all, or another one was quicker
                continue
            return cls(store, mine, beat, expiry)

    async def keep(self) -> None:
        """Give signs of life until cancelled. Raises SeatLost."""
        while True:
            try:
                await self._beat_once()
            except StoreUnavailable as error:
                log.warning("the daemon's sign of life could not be given, and will be again: %s", error)
            await asyncio.sleep(self._beat)

    async def _beat_once(self) -> None:
        try:
            sign = self._mine.with_status(beat=self._mine.status.beat + 1, at=datetime.now(timezone.utc))
            self._mine = await self._store.write_status(sign)
        except (Conflict, NotFound):
            seen = await self._store.get(SeatObject, DAEMON)
            if seen is None or seen.spec != self._mine.spec:
                raise SeatLost(
                    f"this daemon was silent for more than {self._expiry:g} s, and another one works on its store now"
                ) from None
            self._mine = seen  # our own sign: its answer was lost

    async def leave(self) -> None:
        """Let another one in at once. Best effort."""
        try:
            seen = await self._store.get(SeatObject, DAEMON)
            if seen is not None and seen.spec == self._mine.spec:
                await self._store.delete(seen.ref, seen.metadata.uid)
        except StoreUnavailable as error:
            log.warning("the daemon's seat stays until it is found dead: %s", error)


async def _lives(store: Store, seen: SeatObject, machine: str, expiry: float) -> bool:
    """Whether the holder gives a sign of life, or is a process of our own machine, which would be known to be gone."""
    if seen.spec.machine and seen.spec.machine == machine:
        return True
    log.info("waiting up to %g s for a sign of life of the daemon on %s", expiry, seen.spec.host)
    deadline = time.monotonic() + expiry
    while time.monotonic() < deadline:
        await asyncio.sleep(_LOOK)
        now = await store.get(SeatObject, DAEMON)
        if now is None or now.metadata.resource_version != seen.metadata.resource_version:
            return now is not None
    return False
