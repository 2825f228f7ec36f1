"""Set up and end a process that runs user code, the same way everywhere: interpreter, streams, signals, exit.

Every process that imports a package uses this module, so it imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType
    from typing import Any, NoReturn

    Handler = Callable[[int, FrameType | None], Any]

EXIT_GRACE = 5.0
"""Seconds that exit handlers, and threads that are not daemons, may take when a process ends."""

_ON_PYTHON_3_10 = (
    "import sys; del sys.path[0], sys.argv[0]; import runpy; "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)


def python_command(module: str) -> list[str]:
    """The command that runs ``module`` in a new interpreter, which imports nothing from the working folder."""
    if sys.version_info >= (3, 11):
        return [sys.executable, "-P", "-m", module]
    return [sys.executable, "-c", _ON_PYTHON_3_10, module]


def import_nothing_from_working_folder() -> None:
    """What ``python_command`` does, for a process that was started otherwise: with PYTHONSAFEPATH, as pods are.

    That variable does not reach what user code starts: a script of its own may import what stands beside it.
    """
    os.environ.pop("PYTHONSAFEPATH", None)
    if not getattr(sys.flags, "safe_path", False) and sys.path and sys.path[0] in ("", _working_folder()):
        del sys.path[0]  # Python 3.10 does not know the variable


def _working_folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109  # to import pathlib would take longer than the rest of this module
    except OSError:  # it was removed
        return None


# --- standard streams


def open_descriptors() -> None:
    """Open ``/dev/null`` in place of a standard input, output or error that is closed.

    Otherwise the next file or socket that is opened gets its number, and whatever is printed goes there.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)


def open_streams(encoding: str | None = "utf-8") -> None:
    """Make the standard streams usable. For the start of a process, before user code can replace them.

    Output is written line by line, and a character that ``encoding`` lacks is escaped: a ``print`` fails no task.
    ``encoding``: of the output; None: as the environment says.
    """
    open_descriptors()
    if sys.stdin is None:
        sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream: Any = getattr(sys, name)
        if stream is None:  # it was closed when Python started
            stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # until the process ends
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        stream.reconfigure(encoding=encoding, errors="backslashreplace", line_buffering=True)


def print_to(path: Path) -> None:
    """Redirect standard output and error of this process, and of what it starts, to the end of the file ``path``.

    It does not matter what user code has made of ``sys.stdout`` and ``sys.stderr``.
    """
    flush_streams()
    open_descriptors()
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def flush_streams() -> None:
    """Write out what was printed. A stream that was replaced, closed or removed is not an error."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(Exception):  # whatever user code put there
            stream.flush()  # type: ignore[union-attr]  # None is one of those


# --- signals

_own_handlers: dict[int, tuple[Handler, Any]] = {}  # number -> our handler, and the one that was there before
_restoring = False
_forking = threading.local()  # the mask of signals of a thread that forks


def handle(number: int, handler: Handler) -> None:
    """Call ``handler`` when the signal arrives in this process. For the main thread.

    A process that user code forks (``multiprocessing``, ``os.fork``) gets back the handler that was there before:
    otherwise ``Process.terminate()`` would call ours, and the process would not end.
    """
    global _restoring  # a hook cannot be taken back, so it is installed once
    before = signal.getsignal(number)
    if number in _own_handlers and before is _own_handlers[number][0]:
        before = _own_handlers[number][1]
    _own_handlers[number] = (handler, signal.SIG_DFL if before is None else before)
    signal.signal(number, handler)
    if not _restoring:
        _restoring = True
        os.register_at_fork(before=_hold_back, after_in_parent=_let_go, after_in_child=_restore_handlers)


def _hold_back() -> None:
    """Have a signal that arrives in the forked process at once wait until the handler is restored."""
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _own_handlers)


def _let_go() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _restore_handlers() -> None:
    for number, (handler, before) in _own_handlers.items():
        if signal.getsignal(number) is handler:  # not one that user code has installed since
            signal.signal(number, before)
    _own_handlers.clear()
    _let_go()


# --- the parent


def take_input() -> int:
    """The descriptor of what was standard input, over which the parent speaks; user code finds that one empty."""
    taken = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return taken


def end_with(parent: int, hear: Callable[[bytes], object] | None = None) -> None:
    """End this process, and its process group if it leads one, once the other end of ``parent`` is closed.

    ``parent``: the reading end of a pipe. ``hear`` is called with what is sent on it, in a thread. No lock is held
    while that waits, so user code can fork at any time.
    """
    threading.Thread(target=_await_end, args=(parent, hear), name="cloaca-parent", daemon=True).start()


def _await_end(parent: int, hear: Callable[[bytes], object] | None) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(parent, 4096):
            if hear is not None:
                hear(data)
    end_group()


def end_group() -> NoReturn:
    """End this process now, with its process group if it leads one."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


# --- the end

_open_before: list[weakref.ref[Any]] = []  # files that were open when the garbage collector stopped to look at them


def leave(code: int, grace: float = EXIT_GRACE) -> NoReturn:
    """End this process as Python ends one: wait for threads that are not daemons, call the exit handlers, and write out
    files that were left open. For the main thread.

    After ``grace`` seconds it ends all the same; with 0 only what was printed is written out.
    """
    if grace > 0:
        with contextlib.suppress(ValueError):  # not the main thread
            handle(signal.SIGTERM, _already_ending)
        try:
            threading.Thread(target=_end_after, args=(grace, code), name="cloaca-exit", daemon=True).start()
        except RuntimeError:  # the system has no more threads, so nothing limits the time that the rest may take
            pass
        else:
            for step in (_join_threads, _call_exit_handlers, flush_files):
                with contextlib.suppress(BaseException):  # whatever user code raises, the process ends
                    step()
    flush_streams()
    os._exit(code)


def _already_ending(_number: int, _frame: FrameType | None) -> None:
    """It ends soon enough."""


def _end_after(grace: float, code: int) -> None:
    time.sleep(grace)
    left = [thread.name for thread in threading.enumerate() if not thread.daemon and thread.name != "MainThread"]
    what = f"threads that were left running: {', '.join(left)}" if left else "an exit handler, or a file, that hangs"
    with contextlib.suppress(OSError):
        os.write(2, f"this process was ended {grace:g} s after its work was done, because of {what}\n".encode())
    os._exit(code)


def _join_threads() -> None:
    threading._shutdown()  # type: ignore[attr-defined]  # what Python itself calls; pools join their workers there


def _call_exit_handlers() -> None:
    import atexit

    atexit._run_exitfuncs()


def flush_files() -> None:
    """Write out what is buffered in files that are open, as Python does when it deletes them at its end."""
    import gc
    import io

    endings = tuple(
        getattr(sys.modules[module], name)
        for module, name in (("gzip", "GzipFile"), ("bz2", "BZ2File"), ("lzma", "LZMAFile"))
        if module in sys.modules
    )
    files = [found for found in (reference() for reference in _open_before) if found is not None]
    files += _files_in(gc.get_objects())
    for kinds, method in (
        ((io.TextIOWrapper,), "flush"),
        (endings, "close"),  # writes the end of the compressed data
        ((io.BufferedWriter, io.BufferedRandom, io.BufferedRWPair), "flush"),
    ):
        for file in files:
            if issubclass(type(file), kinds):
                with contextlib.suppress(Exception):  # closed, full, or without a reader
                    getattr(file, method)()


def _files_in(objects: list[Any]) -> list[Any]:
    import io

    base = io.IOBase.__base__  # the one in C: to ask the abstract class costs more
    return [found for found in objects if base in type(found).__mro__]


def keep_before_fork() -> None:
    """Prepare this process for forks: they share its memory, flush its files at their own end, and write nothing twice.

    Call it once, when nothing more is to be imported.
    """
    import gc
    import weakref

    flush_files()
    flush_streams()
    gc.collect()
    for file in _files_in(gc.get_objects()):
        with contextlib.suppress(TypeError):  # it cannot be referred to
            _open_before.append(weakref.ref(file))
    gc.freeze()  # keeps the collector of a forked process from touching, and so copying, every page


def forget_parent() -> None:
    """In a forked process: let go of what belongs to the parent, and will be cleaned up by it.

    A temporary folder that a module made when it was imported stays for the other forks, and the parent's own children
    are not ours to end.
    """
    weakref = sys.modules.get("weakref")
    if weakref is not None:
        for finalizer in list(weakref.finalize._registry):
            finalizer.atexit = False
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None:
        multiprocessing._children.clear()
