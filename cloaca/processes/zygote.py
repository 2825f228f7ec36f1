"""A process that has everything imported and forks the ones that work: package zygotes, poll workers, runs.

It has one thread, so forking is safe. The first zygote has no package; it forks one for each package, which imports the
package once, and forks its poll workers and runs. It obeys the process at the other end of its control socket, and ends
with it, together with all that it started.

A message is one JSON object a line; a file descriptor travels with the message that needs it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import cloaca.store.sql.store  # noqa: F401  # here, once, rather than in every run that is forked
from cloaca.authoring.registry import Registry
from cloaca.errors import LoadError, StoreError
from cloaca.packages.inspection import IMPORT_TIMEOUT, import_answer, timed_out
from cloaca.packages.load import load_package
from cloaca.packages.process import (
    EXIT_GRACE,
    end_group,
    flush_streams,
    forget_parent,
    keep_before_fork,
    leave,
    open_streams,
    print_to,
    python_command,
)
from cloaca.polling.worker import work
from cloaca.processes.exits import LOST
from cloaca.processes.lifeline import adopt_orphans, bind_to_parent, describe_exit, kill_group
from cloaca.processes.run import run

_CHUNK = 65_536
_LONGEST_WORDS = 2_000  # bytes of what a spawned process says when it cannot start
_OWN_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_LAST_MOMENTS = 3.0  # seconds that zygotes get to end what they started, when the first zygote ends
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
        self._words: dict[int, int] = {}  # process id -> where a spawned process says why it could not start
        self._descriptors: list[int] = []
        self._buffer = b""
        self._wakeup, self._wakeup_end = socket.socketpair()

    def serve(self) -> NoReturn:
        """Obey until the control socket is closed; then end everything that was started, and this process."""
        self._wakeup.setblocking(False)
        self._wakeup_end.setblocking(False)
        self._handlers = {number: signal.getsignal(number) for number in _OWN_SIGNALS}
        for number in _OWN_SIGNALS:  # only the end of the control socket, or of the parent, ends this process
            signal.signal(number, _noted)
        signal.set_wakeup_fd(self._wakeup_end.fileno())
        parent = os.getppid()
        bind_to_parent(parent, signal.SIGTERM)  # from here on it can end what it started, before it ends
        adopt_orphans()
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        keep_before_fork()
        try:
            while os.getppid() == parent:
                for descriptor, _ in poll.poll():
                    if descriptor == self._wakeup.fileno():
                        self._reap()
                    elif not self._receive():
                        break
                else:
                    continue
                break
        finally:
            self._end()

    def _end(self) -> NoReturn:
        """End everything that was started, and this process."""
        if self._registry is None:
            deadline = time.monotonic() + _LAST_MOMENTS
            while self._children and time.monotonic() < deadline:  # zygotes, which end what they started
                time.sleep(0.01)
                self._reap()
        for pid in list(self._children):
            kill_group(pid)
        leave(0, 0 if self._registry is None else 1.0)

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
            case "run" | "fetch":
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
        flush_streams()
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
            leave(1, 0)

    def _leave(self) -> None:
        """In a forked child: let go of what belongs to the parent."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():  # as Python, or the package, had installed them
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for shared in (self._control, self._wakeup, self._wakeup_end):
            shared.close()
        for words in self._words.values():
            os.close(words)
        forget_parent()

    def _spawn(self, message: dict[str, Any], descriptor: int | None) -> int:
        """Where forking is not safe: a new interpreter, which imports the package itself."""
        reading, writing = os.pipe()
        try:
            job = {"message": message, "descriptor": descriptor, "origin": self._origin, "words": writing}
            child = subprocess.Popen(
                [*python_command("cloaca.processes.zygote"), json.dumps(job)],
                pass_fds=(writing,) if descriptor is None else (writing, descriptor),
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        child.returncode = 0  # we reap it ourselves, with the others
        self._words[child.pid] = reading
        return child.pid

    def _reap(self) -> None:
        try:
            while self._wakeup.recv(_CHUNK):
                pass
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            request = self._children.pop(pid, None)
            if request is None:  # started by the package while it was imported, or an orphan of a process of ours
                if self._registry is None:  # of a zygote that was killed: perhaps a run, with a group of its own
                    kill_group(pid)
                continue
            kill_group(pid)  # what it left behind in its group
            del self._requests[request]
            code = None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
            self._say({"exited": request, "how": describe_exit(status) + self._words_of(pid), "code": code})

    def _words_of(self, pid: int) -> str:
        """``: why it could not start``, of a spawned process; else nothing."""
        reading = self._words.pop(pid, None)
        if reading is None:
            return ""
        try:
            os.set_blocking(reading, False)
            words = os.read(reading, _LONGEST_WORDS).decode(errors="replace")
        except BlockingIOError:  # it said nothing, and a process that it left behind has the other end
            words = ""
        finally:
            os.close(reading)
        return f": {words}" if words else ""

    def _say(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):  # the next receive sees that it is gone
            self._control.sendall(json.dumps(message).encode() + b"\n")


def become(message: dict[str, Any], descriptor: int | None, registry: Registry | None) -> NoReturn:
    """Turn this (new) process into what ``message`` asks for."""
    random.seed()
    if "log" in message:
        print_to(Path(message["log"]))
    os.environ.update(message.get("env", {}))
    if message["op"] == "package":
        if descriptor is None:
            raise ValueError("a package zygote needs a control socket")
        _become_package(message, socket.socket(fileno=descriptor))
    if message["op"] == "fetch":
        from cloaca.processes.fetch import main as fetch  # the nursery of fetches alone has it imported

        leave(fetch(message["arguments"]), 0)
    if registry is None:
        raise ValueError(f"{message['op']!r} was asked of a zygote without a package")
    if message["op"] == "worker":
        if descriptor is None:
            raise ValueError("a poll worker needs a channel")
        work(socket.socket(fileno=descriptor), registry.triggers)
    try:
        code = run(message["job"], registry)
    except StoreError as error:
        print(error, file=sys.stderr)
        code = 1
    leave(code, 0 if code == LOST else EXIT_GRACE)  # another process may be at work on a run that was lost


def _become_package(message: dict[str, Any], control: socket.socket) -> NoReturn:
    registry, told = import_answer(Path(message["root"]), message["entry_module"])
    control.sendall(json.dumps(told).encode() + b"\n")
    if registry is None:
        leave(1, 1.0)
    Zygote(control, registry, message).serve()


def _fork_is_safe() -> bool:
    """Whether this process has one thread only; a fork takes over no other, nor the locks that they hold."""
    if sys.platform != "linux":
        return False
    return len(list(Path("/proc/self/task").iterdir())) == 1


def _lead_group(pid: int) -> None:
    with contextlib.suppress(OSError):  # the other side of the fork was quicker, or the child is gone
        os.setpgid(pid, pid)


def _noted(number: int, frame: FrameType | None) -> None:
    """The signal reaches the loop through the wakeup descriptor."""


def _spawned(job: dict[str, Any]) -> NoReturn:
    """Be a child of a zygote that cannot fork: import the package here, and say why where that fails."""
    message, origin, words = job["message"], job["origin"], job["words"]
    os.set_inheritable(words, False)
    if "log" in message:
        print_to(Path(message["log"]))
    registry = None
    if origin is not None:
        os.environ.update(origin.get("env", {}))
        limit = threading.Timer(IMPORT_TIMEOUT, _took_too_long, args=(words,))
        limit.daemon = True
        limit.start()
        try:
            registry = load_package(Path(origin["root"]), origin["entry_module"])
        except LoadError as error:
            _say_last(words, f"{error}\n{error.traceback_text}".rstrip())
            leave(1, 1.0)
        limit.cancel()
    os.close(words)
    become(message, job["descriptor"], registry)


def _took_too_long(words: int) -> NoReturn:
    _say_last(words, str(timed_out(IMPORT_TIMEOUT)))
    end_group()


def _say_last(words: int, said: str) -> None:
    """Say in the log, and to the zygote, why this process cannot start."""
    print(said, file=sys.stderr)
    os.write(words, said.splitlines()[0].encode("utf-8", "backslashreplace")[:_LONGEST_WORDS])


def main() -> NoReturn:
    """Of ``python -m cloaca.processes.zygote``: the first zygote, or one spawned child where forking is not safe."""
    open_streams()
    bind_to_parent(os.getppid())
    if len(sys.argv) > 1:
        _spawned(json.loads(sys.argv[1]))
    for module in os.environ.pop(_MODULES).split():
        importlib.import_module(module)
    Zygote(socket.socket(fileno=int(os.environ.pop(_CONTROL))), None, None).serve()


if __name__ == "__main__":
    main()
