"""A child never outlives its parent, and is a process group of its own that can be ended whole."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# Loaded before any fork: loading a library in a forked child may take locks that nobody holds any more.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def bind_to_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Have this process get a signal when ``parent`` (its process id) dies: SIGKILL, or one that it handles.

    Where the system cannot do that (not Linux), the closed channel tells the child instead.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it died before we could ask
            os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of what a child of this process leaves behind, and reap it. Linux only.

    Otherwise the first process of the machine or container gets it, and that of a container may reap nothing.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_group(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to the process group that ``pid`` leads; gone already: fine."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:  # macOS says so of a group whose leader is a zombie
        pass


def describe_exit(status: int) -> str:
    """A wait status in words: ``exit code 3``, ``signal 9 (SIGKILL)``."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"signal {number} ({signal.Signals(number).name})"
        except ValueError:
            return f"signal {number}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
