"""A process that has everything imported and forks the ones that work: package zygotes, poll workers, runs.

It has one thread, so forking is safe. The first zygote has no package; it forks one for each package, which imports the
package once, and forks its poll workers and runs. It obeys the process at the other end of its control socket, and ends
with it, together with all that it started.

A message is one JSON object a line; a file descriptor travels with the message that needs it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import cloaca.store.sql.store  # noqa: F401  # here, once, rather than in every run that is forked
from cloaca.authoring.registry import Registry
from cloaca.errors import LoadError, StoreError
from cloaca.packages.inventory import inventory_of
from cloaca.packages.load import load_package
from cloaca.polling.worker import work
from cloaca.processes.lifeline import bind_to_parent, describe_exit, kill_group
from cloaca.processes.run import run

_CHUNK = 65_536
_CONTROL = "CLOACA_ZYGOTE_CONTROL"  # the descriptor of the control socket, for a zygote that was executed
_MODULES = "CLOACA_ZYGOTE_MODULES"  # what is imported once, for all that are forked


class Zygote:
    """Serves one control socket. ``registry``: what its package registered; None: it has no package."""

    def __init__(self, control: socket.socket, registry: Registry | None, origin: dict[str, Any] | None) -> None:
        self._control = control
        self._registry = registry
        self._origin = origin  # the message that made it a package's zygote
        self._children: dict[int, int] = {}  # process id -> id of the request that started it
        self._requests: dict[int, int] = {}  # the other way round
        self._descriptors: list[int] = []
        self._buffer = b""
        self._wakeup, self._wakeup_end = socket.socketpair()

    def serve(self) -> NoReturn:
        """Obey until the control socket is closed; then end everything that was started, and this process."""
        self._wakeup.setblocking(False)
        self._wakeup_end.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT):  # the end of the control socket is what ends us
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, _noted)
        signal.set_wakeup_fd(self._wakeup_end.fileno())
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        gc.collect()
        gc.freeze()  # keeps the collector of a forked child from touching, and so copying, every page
        try:
            while True:
                for descriptor, _ in poll.poll():
                    if descriptor == self._wakeup.fileno():
                        self._reap()
                    elif not self._receive():
                        break
                else:
                    continue
                break
        finally:
            for pid in list(self._children):
                kill_group(pid)
            os._exit(0)

    def _receive(self) -> bool:
        """Take what the other end says. False: it is gone."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, _CHUNK, 8)
        except ConnectionError:
            return False
        if not data:
            return False
        self._descriptors.extend(descriptors)
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))
        return True

    def _obey(self, message: dict[str, Any]) -> None:
        match message["op"]:
            case "package" | "worker":
                self._bear(message, self._descriptors.pop(0))
            case "run":
                self._bear(message, None)
            case "signal":
                pid = self._requests.get(message["id"])
                if pid is not None:
                    kill_group(pid, message["signal"])

    def _bear(self, message: dict[str, Any], descriptor: int | None) -> None:
        """Start a child for ``message`` and say so."""
        try:
            pid = self._fork(message, descriptor) if _fork_is_safe() else self._spawn(message, descriptor)
        except OSError as error:
            self._say({"refused": message["id"], "error": f"no process could be started: {error}"})
            return
        finally:
            if descriptor is not None:
                os.close(descriptor)
        self._children[pid] = message["id"]
        self._requests[message["id"]] = pid
        self._say({"started": message["id"], "pid": pid})

    def _fork(self, message: dict[str, Any], descriptor: int | None) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            _lead_group(pid)
            return pid
        try:
            self._leave()
            _lead_group(0)
            bind_to_parent(parent)
            become(message, descriptor, self._registry)
        except BaseException:  # noqa: BLE001  # nothing may return into the parent's loop
            traceback.print_exc()
        finally:
            _exit(1)

    def _leave(self) -> None:
        """In a forked child: let go of what belongs to the parent."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        for shared in (self._control, self._wakeup, self._wakeup_end):
            shared.close()

    def _spawn(self, message: dict[str, Any], descriptor: int | None) -> int:
        """Where forking is not safe: a new interpreter, which imports the package itself."""
        job = {"message": message, "descriptor": descriptor, "origin": self._origin}
        child = subprocess.Popen(
            [sys.executable, "-m", "cloaca.processes.zygote", json.dumps(job)],
            pass_fds=() if descriptor is None else (descriptor,),
            start_new_session=True,
        )
        child.returncode = 0  # we reap it ourselves, with the others
        return child.pid

    def _reap(self) -> None:
        try:
            while self._wakeup.recv(_CHUNK):
                pass
        except BlockingIOError:
            pass
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            request = self._children.pop(pid, None)
            if request is None:
                continue  # a process that the package started while it was imported
            kill_group(pid)  # what it left behind in its group
            del self._requests[request]
            code = None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
            self._say({"exited": request, "how": describe_exit(status), "code": code})

    def _say(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):  # the next receive sees that it is gone
            self._control.sendall(json.dumps(message).encode() + b"\n")


def become(message: dict[str, Any], descriptor: int | None, registry: Registry | None) -> NoReturn:
    """Turn this (new) process into what ``message`` asks for."""
    random.seed()
    if "log" in message:
        _log_to(Path(message["log"]))
    os.environ.update(message.get("env", {}))
    if message["op"] == "package":
        if descriptor is None:
            raise ValueError("a package zygote needs a control socket")
        _become_package(message, socket.socket(fileno=descriptor))
    if registry is None:
        raise ValueError(f"{message['op']!r} was asked of a zygote without a package")
    if message["op"] == "worker":
        if descriptor is None:
            raise ValueError("a poll worker needs a channel")
        work(socket.socket(fileno=descriptor), registry.triggers)
        _exit(0)
    try:
        code = run(message["job"], registry)
    except StoreError as error:
        print(error, file=sys.stderr)
        code = 1
    _exit(code)


def _become_package(message: dict[str, Any], control: socket.socket) -> NoReturn:
    try:
        registry = load_package(Path(message["root"]), message["entry_module"])
        inventory = inventory_of(registry)
    except LoadError as error:
        control.sendall(json.dumps({"failed": str(error), "traceback": error.traceback_text}).encode() + b"\n")
        _exit(1)
    control.sendall(json.dumps({"loaded": inventory.to_json()}).encode() + b"\n")
    Zygote(control, registry, message).serve()


def _fork_is_safe() -> bool:
    """Whether this process has one thread only; a fork takes over no other, nor the locks that they hold."""
    if sys.platform != "linux":
        return False
    return len(list(Path("/proc/self/task").iterdir())) == 1


def _log_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a TextIOWrapper, never replaced by us


def _lead_group(pid: int) -> None:
    with contextlib.suppress(OSError):  # the other side of the fork was quicker, or the child is gone
        os.setpgid(pid, pid)


def _noted(number: int, frame: FrameType | None) -> None:
    """The signal reaches the loop through the wakeup descriptor."""


def _exit(code: int) -> NoReturn:
    """Leave without the parent's exit handlers, and without waiting for threads of user code."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def main() -> NoReturn:
    """Of ``python -m cloaca.processes.zygote``: the first zygote, or one spawned child where forking is not safe."""
    bind_to_parent(os.getppid())
    if len(sys.argv) > 1:
        job = json.loads(sys.argv[1])
        origin = job["origin"]
        registry = None
        if origin is not None:
            os.environ.update(origin.get("env", {}))
            registry = load_package(Path(origin["root"]), origin["entry_module"])
        become(job["message"], job["descriptor"], registry)
    for module in os.environ.pop(_MODULES).split():
        importlib.import_module(module)
    Zygote(socket.socket(fileno=int(os.environ.pop(_CONTROL))), None, None).serve()


if __name__ == "__main__":
    main()
