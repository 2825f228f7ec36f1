"""Start and follow zygotes and their children, from an asyncio program. Knows processes, nothing of what they do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import resource
import signal
import socket
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloaca.errors import CloacaError, ImportCrashed, ImportTimedOut, LoadError
from cloaca.packages.inventory import Inventory
from cloaca.packages.process import open_descriptors, python_command
from cloaca.polling.messages import LONGEST_LINE

_CONTROL = "CLOACA_ZYGOTE_CONTROL"
_MODULES = "CLOACA_ZYGOTE_MODULES"
_ZYGOTE_GONE = "its zygote is gone"
_LAST_WORDS = 5.0  # seconds that a zygote gets to end what it started


class ProcessError(CloacaError):
    """A process of ours could not be started, or went away when it was needed."""


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How a process ended."""

    how: str  # in words: "exit code 3", "signal 9 (SIGKILL)"
    code: int | None  # None: by a signal, or nobody knows


@dataclass
class Child:
    """A process that a zygote started."""

    id: int
    started: asyncio.Future[int]
    ended: asyncio.Future[Exit]
    _link: _Link = field(repr=False)

    def signal(self, number: int) -> None:
        """Send a signal to its whole process group; gone already: fine."""
        self._link.send({"op": "signal", "id": self.id, "signal": number})


class _Link:
    """One control socket: requests out, answers in."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._children: dict[int, Child] = {}
        self._outgoing: list[tuple[bytes, int | None]] = []
        self._buffer = b""
        self.closed = False
        self.loaded: asyncio.Future[Inventory] = self._loop.create_future()
        control.setblocking(False)
        self._loop.add_reader(control.fileno(), self._receive)

    def start(self, message: dict[str, Any], descriptor: int | None = None) -> Child:
        """Ask for a child; ``started`` and ``ended`` of what is returned tell the rest. Takes over ``descriptor``."""
        child = Child(next(self._ids), self._loop.create_future(), self._loop.create_future(), self)
        if self.closed:
            if descriptor is not None:
                os.close(descriptor)
            self._lost(child)
            return child
        self._children[child.id] = child
        self.send({**message, "id": child.id}, descriptor)
        return child

    def send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        if self.closed:
            return
        self._outgoing.append((json.dumps(message).encode() + b"\n", descriptor))
        self._flush()

    def close(self) -> None:
        """Close the socket: the zygote ends all that it started, and itself."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._control.fileno())
        self._loop.remove_writer(self._control.fileno())
        self._control.close()
        for _, descriptor in self._outgoing:
            if descriptor is not None:
                os.close(descriptor)
        self._outgoing.clear()
        for child in list(self._children.values()):
            self._lost(child)
        self._children.clear()
        if not self.loaded.done():
            self.loaded.set_exception(ImportCrashed("the process that imported the package died without an answer"))
        self.loaded.exception() if not self.loaded.cancelled() else None

    def _lost(self, child: Child) -> None:
        if not child.started.done():
            child.started.set_exception(ProcessError("the zygote is gone"))
            child.started.exception()  # whoever waits gets it; whoever does not need not
        if not child.ended.done():
            child.ended.set_result(Exit(how=_ZYGOTE_GONE, code=None))

    def _flush(self) -> None:
        while self._outgoing:
            data, descriptor = self._outgoing[0]
            try:
                if descriptor is not None:
                    sent = socket.send_fds(self._control, [data], [descriptor])
                    os.close(descriptor)
                else:
                    sent = self._control.send(data)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._control.fileno(), self._flush)
                return
            except OSError:
                self.close()
                return
            if sent < len(data):
                self._outgoing[0] = (data[sent:], None)
            else:
                self._outgoing.pop(0)
        self._loop.remove_writer(self._control.fileno())

    def _receive(self) -> None:
        try:
            data = self._control.recv(65_536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._heard(json.loads(line))

    def _heard(self, message: dict[str, Any]) -> None:
        if "started" in message:
            self._children[message["started"]].started.set_result(message["pid"])
        elif "exited" in message:
            child = self._children.pop(message["exited"])
            child.ended.set_result(Exit(how=message["how"], code=message["code"]))
        elif "refused" in message:
            child = self._children.pop(message["refused"])
            child.started.set_exception(ProcessError(message["error"]))
            child.started.exception()
            child.ended.set_result(Exit(how=message["error"], code=None))
        elif "loaded" in message and not self.loaded.done():
            self.loaded.set_result(Inventory.from_json(message["loaded"]))
        elif "failed" in message and not self.loaded.done():
            self.loaded.set_exception(LoadError(message["failed"], message["traceback"]))


class Nursery:
    """The first zygote: a fresh interpreter that has the runtime imported and forks one zygote a package."""

    def __init__(self, process: asyncio.subprocess.Process, link: _Link) -> None:
        self._process = process
        self._link = link
        self._packages: weakref.WeakSet[PackageZygote] = weakref.WeakSet()

    @classmethod
    async def start(cls, modules: Sequence[str] = ()) -> Nursery:
        """Start it; every process below has ``modules`` imported. It ends with this process, or with ``close()``."""
        open_descriptors()
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *python_command("cloaca.processes.zygote"),
                env={**os.environ, _CONTROL: str(theirs.fileno()), _MODULES: " ".join(modules)},
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        return cls(process, _Link(ours))

    @property
    def alive(self) -> bool:
        """Whether packages can be started."""
        return not self._link.closed

    def package(self, *, root: Path, entry_module: str, env: Mapping[str, str], log: Path | None) -> PackageZygote:
        """Start the zygote of a package that is unpacked at ``root``; it imports ``entry_module`` at once.

        ``env`` adds to the environment; what the package prints goes to ``log`` (None: to where we print).
        """
        ours, theirs = socket.socketpair()
        link = _Link(ours)
        message: dict[str, Any] = {"op": "package", "root": str(root), "entry_module": entry_module, "env": dict(env)}
        if log is not None:
            message["log"] = str(log)
        zygote = PackageZygote(self._link.start(message, theirs.detach()), link)
        self._packages.add(zygote)
        return zygote

    def fetch(self, arguments: Sequence[str]) -> Child:
        """Start a process that gets an archive (see ``cloaca.processes.fetch``)."""
        return self._link.start({"op": "fetch", "arguments": list(arguments)})

    async def close(self) -> None:
        """End it and everything below it."""
        for zygote in list(self._packages):
            zygote.hang_up()
        self._link.close()
        await self._process.wait()


class PackageZygote:
    """The zygote of one package: imports it once, then forks its poll workers and runs."""

    def __init__(self, child: Child, link: _Link) -> None:
        self._child = child
        self._link = link
        self._importing = True

    @property
    def alive(self) -> bool:
        """Whether it can start anything."""
        return not self._link.closed

    async def inventory(self, timeout: float) -> Inventory:
        """What the package registered when it was imported.

        Raises LoadError where the import fails, takes longer than ``timeout`` seconds or ends the process; the
        process is gone then.
        """
        try:
            inventory = await asyncio.wait_for(asyncio.shield(self._link.loaded), timeout)
        except asyncio.TimeoutError:
            await self.close()
            raise ImportTimedOut(f"the import took longer than {timeout:g} s and was stopped") from None
        except ImportCrashed:
            ended = await self._child.ended
            if ended.how == _ZYGOTE_GONE:
                raise ProcessError("the first zygote ended before the package was imported") from None
            raise ImportCrashed(f"the import ended its process ({ended.how}) without an answer") from None
        self._importing = False
        return inventory

    async def ended(self) -> Exit:
        """Return when it is gone."""
        return await asyncio.shield(self._child.ended)

    async def start_worker(self) -> PollWorker:
        """Start a poll worker."""
        ours, theirs = socket.socketpair()
        child = self._link.start({"op": "worker"}, theirs.detach())
        reader, writer = await asyncio.open_connection(sock=ours, limit=LONGEST_LINE)
        return PollWorker(child, reader, writer)

    def start_run(self, job: dict[str, Any], log: Path) -> Child:
        """Start a process that executes the run of ``job`` (see ``cloaca.processes.run``)."""
        return self._link.start({"op": "run", "job": job, "log": str(log)})

    def hang_up(self) -> None:
        """Have it end, and everything that it started; returns at once."""
        self._link.close()
        if self._importing:  # it does not see the closed socket
            self._child.signal(signal.SIGKILL)

    async def close(self) -> None:
        """End it and everything that it started, now."""
        self._link.close()
        done, _ = await asyncio.wait({self._child.ended}, timeout=0.0 if self._importing else _LAST_WORDS)
        if not done:
            self._child.signal(signal.SIGKILL)  # stuck in the import: it does not see the closed socket
            await self._child.ended


class PollWorker:
    """A process in which trigger functions are called."""

    def __init__(self, child: Child, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._child = child
        self.reader = reader
        self.writer = writer

    def kill(self) -> None:
        """End it and everything that it started, now. Idempotent."""
        self._child.signal(signal.SIGKILL)

    async def wait(self) -> str:
        """Return when it has ended, with words for a person."""
        with contextlib.suppress(ProcessError):
            await self._child.started
        return (await self._child.ended).how

    def memory(self) -> int:
        """Bytes that it has resident; 0 where the system does not tell (not Linux), or it is not running."""
        started = self._child.started
        if not started.done() or started.exception() is not None or self._child.ended.done():
            return 0
        try:
            resident = Path(f"/proc/{started.result()}/statm").read_text().split()[1]
        except OSError:
            return 0
        return int(resident) * resource.getpagesize()
