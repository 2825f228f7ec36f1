"""The one process of a run's pod: import the mounted package and execute one attempt of one WorkflowRun.

What it imports before its first task is most of what a run costs: nothing stands here that a run can do without.
"""

from __future__ import annotations

import os
import signal
import sys

from cloaca.processes.exits import obey_at_once
from cloaca.processes.swift import importing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

_NEEDED = ("archive", "digest", "store", "namespace", "run", "uid", "attempt")
_USAGE = f"""\
usage: python -m cloaca.processes.attempt {" ".join(f"--{name} …" for name in _NEEDED)} [--scratch …]
Execute one attempt of a WorkflowRun. The operator writes these arguments.
  --archive    folder with the parts of the archive: 000, 001 …
  --digest     what the parts together must be: sha256:…
  --scratch    where it is unpacked; /tmp/cloacina
  --store      URL of the store that has the run
  --namespace  of the run
  --run        name of the WorkflowRun
  --uid        its uid: another run of that name is not meant
  --attempt    which attempt this is, from 1"""


def main(given: Sequence[str] | None = None) -> int:
    """Returns one of the exit codes of ``exits``, 1 where the package or the store cannot be had, 2 where it was
    started wrongly."""
    from cloaca.packages.process import handle, open_streams

    handle(signal.SIGTERM, obey_at_once)
    open_streams()
    asked = _asked(sys.argv[1:] if given is None else given)
    if asked is None:
        print(_USAGE, file=sys.stderr)
        return 2
    with importing():
        from cloaca.processes.ahead import Ahead

        served = asked["store"].startswith("kubernetes:")  # a file gives its answer at once
        ahead = Ahead(asked["store"], asked["run"], asked["namespace"]) if served else None
        from pathlib import Path

        from cloaca.errors import PackageError, StoreError
        from cloaca.packages.load import load_package
        from cloaca.processes.mounted import mounted
        from cloaca.processes.run import run
    try:
        package = mounted(Path(asked["archive"]), asked["digest"], Path(asked["scratch"]))
        registry = load_package(package.root, package.entry_module)
    except PackageError as error:
        return _gave_up(f"{error}\n{getattr(error, 'traceback_text', '')}".rstrip())

    job = {
        "store": asked["store"],
        "namespace": asked["namespace"],
        "name": asked["run"],
        "uid": asked["uid"],
        "attempt": int(asked["attempt"]),
        "manifest": str(package.manifest),
        "pod": os.environ.get("CLOACA_POD", str(os.getpid())),
    }
    try:
        return run(job, registry, ahead)
    except StoreError as error:
        return _gave_up(str(error))


def _asked(given: Sequence[str]) -> Mapping[str, str] | None:
    """Argument → value; None: it is not as it must be. What argparse would do takes longer than the first request."""
    asked = {"--scratch": "/tmp/cloacina", **dict(zip(given[::2], given[1::2], strict=False))}  # noqa: S108  # the pod's
    if len(given) % 2 or {*asked} != {"--scratch", *(f"--{name}" for name in _NEEDED)}:
        return None
    return {option[2:]: value for option, value in asked.items()} if asked["--attempt"].isdigit() else None


def _gave_up(words: str) -> int:
    from cloaca.processes.mounted import say_last

    print(words, file=sys.stderr)
    say_last(words)
    return 1


def _end(code: int) -> NoReturn:
    from cloaca.packages.process import EXIT_GRACE, leave
    from cloaca.processes.exits import LOST

    leave(code, 0 if code == LOST else EXIT_GRACE)  # another process may be at work on a run that was lost


if __name__ == "__main__":
    from cloaca.packages.process import import_nothing_from_working_folder

    import_nothing_from_working_folder()
    _end(main())
