"""Import a package that is unpacked, and collect what its decorators register. Runs in the package's own process.

Every process that runs user code imports this module, so it imports nothing heavy.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from cloaca.authoring.registry import Registry, collecting
from cloaca.errors import DefinitionError, LoadError

MANIFEST_NAME = "manifest.json"
VENDOR = "vendor"
"""The folder in an archive whose modules can be imported beside those at its root."""

_LONGEST_TRACEBACK = 8_000
_FRAMES = 30


def load_package(root: Path, entry_module: str) -> Registry:
    """Import ``entry_module`` from ``root`` (its ``vendor/`` is on the path too) and return what it registered.

    Tasks outside of every workflow form one that is named after the package, as ``manifest.json`` in ``root`` has it.
    For a process that belongs to this package alone: the path and the imported modules stay. Raises LoadError,
    whose ``traceback_text`` shows the package's own frames, if the import raises, calls ``sys.exit`` or finds
    something else than the package under that name.
    """
    root = root.resolve()
    present = sys.modules.get(entry_module.partition(".")[0])
    if present is not None:
        raise LoadError(
            f"a module named {present.__name__!r} is loaded in this process already ({_origin(present)}): "
            "rename the package's module, and load each package in a process of its own"
        )
    sys.path[:0] = [str(root), str(root / VENDOR)]
    importlib.invalidate_caches()  # the files may be younger than what the finders remember
    with collecting() as registry:
        registry.loose = {}
        try:
            module = importlib.import_module(entry_module)
            _gather_loose_tasks(registry, root)
        except KeyboardInterrupt:
            raise
        except SystemExit as error:
            message = f"importing {entry_module!r} called sys.exit({'' if error.code is None else repr(error.code)})"
            raise LoadError(
                f"{message}: a module that is imported must not exit", _trimmed_traceback(error, root)
            ) from error
        except BaseException as error:
            raise _import_failed(entry_module, error, root) from error
    if not _belongs(module, root):
        raise LoadError(
            f"entry_module {entry_module!r} was found in the environment ({_origin(module)}) and not in the archive: "
            "pack the module, or name the one that was packed"
        )
    return registry


def _gather_loose_tasks(registry: Registry, root: Path) -> None:
    """Make a workflow, named after the package, of the tasks that no workflow has. Raises DefinitionError."""
    taken = {task.function for workflow in registry.workflows.values() for task in workflow.tasks.values()}
    loose = [task for task in (registry.loose or {}).values() if task.function not in taken]
    if not loose:
        return
    from cloaca.authoring.workflow import WorkflowBuilder

    name = _package_name(root)
    for other in registry.workflows:
        if other.replace("-", "_") == name.replace("-", "_"):
            raise DefinitionError(
                f"task {loose[0].id!r} stands outside of a workflow, and so belongs to the one that is named after the "
                f"package, but there is a workflow {other!r}: put the task into its `with` block"
            )
    builder = WorkflowBuilder(name, package=name)
    for task in loose:
        builder.define(task)
    registry.add_workflow(builder.build())


def _package_name(root: Path) -> str:
    import json  # few packages have such tasks

    try:
        return str(json.loads((root / MANIFEST_NAME).read_bytes())["package"]["name"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DefinitionError(
            f"tasks stand outside of a workflow, and {MANIFEST_NAME} does not say what the package is named: {error}"
        ) from error


def _import_failed(entry_module: str, error: BaseException, root: Path) -> LoadError:
    import traceback  # most imports succeed

    said = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()
    summary = said[-1] if not isinstance(error, SyntaxError) else f"{type(error).__name__}: {error}"
    return LoadError(
        f"importing {entry_module!r} failed: {summary[:1000]}{_where(error, root)}{_advice(error, entry_module)}",
        _trimmed_traceback(error, root),
    )


def _where(error: BaseException, root: Path) -> str:
    """`` (data_ingest/__init__.py:31)``: the innermost line of the package itself."""
    if isinstance(error, SyntaxError):
        return ""  # it says so itself
    import traceback

    found = ""
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.is_relative_to(root):
            found = f" ({path.relative_to(root).as_posix()}:{frame.lineno})"
    return found


def _advice(error: BaseException, entry_module: str) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        name = error.name.partition(".")[0]
        if name == entry_module.partition(".")[0]:
            return ": the archive has no such module; see python.entry_module in manifest.json"
        return f": put {name!r} into the entry package or vendor/, or use a runtime image that has it"
    if isinstance(error, DefinitionError):
        return ": correct the decorator and pack again"
    return ""


def _trimmed_traceback(error: BaseException, root: Path) -> str:
    """The traceback without our frames and importlib's, with paths relative to the package's root."""
    import traceback

    formatted = traceback.TracebackException.from_exception(error)
    link: traceback.TracebackException | None = formatted
    while link is not None:
        frames = [frame for frame in link.stack if not _is_machinery(frame.filename)]
        link.stack = traceback.StackSummary.from_list(frames[-_FRAMES:])
        link = link.__cause__ or link.__context__
    text = "".join(formatted.format()).replace(f"{root}/", "").strip()
    if len(text) > _LONGEST_TRACEBACK:
        text = f"…\n{text[-_LONGEST_TRACEBACK:]}"
    return text.encode("utf-8", "backslashreplace").decode()


def _is_machinery(filename: str) -> bool:
    return filename == __file__ or filename == importlib.__file__ or filename.startswith("<frozen importlib")


def _belongs(module: ModuleType, root: Path) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(place and Path(place).resolve().is_relative_to(root) for place in places)


def _origin(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or "built in"
