"""Hears what other processes committed to a PostgreSQL schema (LISTEN), in a thread. Reads no row."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from contextlib import closing

import psycopg

from cloaca.errors import StoreUnavailable
from cloaca.store.sql.postgres_session import Psycopg, connect, quoted
from cloaca.store.sql.url import PostgresUrl

_PAUSE = 0.2  # seconds between two tries to reach the server


class Listener:
    """Calls ``told`` after each commit of others, and whenever one may have been missed."""

    def __init__(
        self, url: PostgresUrl, channel: str, told: Callable[[], None], ours: Callable[[], int | None]
    ) -> None:
        self._url = url
        self._channel = channel
        self._told = told
        self._ours = ours  # the server's process whose commits need not be told
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ending, self._end = os.pipe()

    def start(self) -> None:
        """Listen from now on. Idempotent; returns at once, and ``told`` is called when it listens."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="cloaca-listen", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Listen no more. Called once."""
        os.write(self._end, b".")
        with self._lock:
            if self._thread is not None:
                self._thread.join()
        os.close(self._ending)
        os.close(self._end)

    def _listen(self) -> None:
        while not self._ended(0):
            try:
                with closing(connect(self._url)) as connection:
                    connection.execute(f"LISTEN {quoted(self._channel)}".encode())
                    self._told()  # what was committed before we listened
                    self._follow(connection)
            except (StoreUnavailable, psycopg.Error):
                self._told()  # whoever follows learns what is wrong when it reads
                if self._ended(_PAUSE):
                    return

    def _follow(self, connection: Psycopg) -> None:
        """Until the end. Raises psycopg.Error when the connection is lost."""
        server = connection.fileno()
        while True:
            readable, _, _ = select.select([server, self._ending], [], [])
            if self._ending in readable:
                return
            connection.pgconn.consume_input()
            heard = []
            while (notice := connection.pgconn.notifies()) is not None:
                heard.append(notice.be_pid)
            if any(process != self._ours() for process in heard):
                self._told()

    def _ended(self, seconds: float) -> bool:
        """Whether to end, at the latest after ``seconds``."""
        return bool(select.select([self._ending], [], [], seconds)[0])
