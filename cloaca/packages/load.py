"""Import a package that is unpacked, and collect what its decorators register. Runs in the package's own process.

Every process that runs user code imports this module, so it imports nothing heavy.
"""

from __future__ import annotations

import importlib
import sys
from io import TextIOWrapper
from pathlib import Path
from types import ModuleType

from cloaca.authoring.registry import Registry, collecting
from cloaca.errors import DefinitionError, LoadError
from cloaca.failure import failure_of, frames_of, last_lines, plain_text, shown
from cloaca.packages.host import HOST_LIBRARIES, VENDOR, load_host_libraries

MANIFEST_NAME = "manifest.json"
_LONGEST_TRACEBACK = 8_000
_LONGEST_SUMMARY = 1_000


def load_package(root: Path, entry_module: str) -> Registry:
    """Import ``entry_module`` from ``root`` (its ``vendor/`` is on the path too) and return what it registered.

    Tasks outside of every workflow form one that is named after the package, as ``manifest.json`` in ``root`` has it.
    For a process that belongs to this package alone: the path and the imported modules stay, ``sys.argv`` is the entry
    module's name and nothing else, and the standard streams write what they cannot encode, such as the name of a file
    that is not UTF-8, as escapes. Raises LoadError, whose ``traceback_text`` shows the package's own frames, if the
    import raises, calls ``sys.exit`` or finds something else than the package under that name.
    """
    root = root.resolve()
    sys.argv[:] = [entry_module]  # how a process was started differs; no package is to see it
    top = entry_module.partition(".")[0]
    if top in HOST_LIBRARIES:
        raise LoadError(f"the package's module is named {top!r}, as a library that Cloacina itself uses: rename it")
    load_host_libraries(root)
    present = sys.modules.get(top)
    if present is not None:
        raise LoadError(
            f"a module named {present.__name__!r} is loaded in this process already ({_origin(present)}): "
            "rename the package's module, and load each package in a process of its own"
        )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # not where it was replaced or closed
            stream.reconfigure(errors="backslashreplace")
    sys.path[:0] = [str(root), str(root / VENDOR)]
    importlib.invalidate_caches()  # the files may be younger than what the finders remember
    with collecting() as registry:
        registry.loose = {}
        try:
            module = importlib.import_module(entry_module)
            _gather_loose_tasks(registry, root)
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
    """Whatever the import raised; it may be an exception class of the package's own that cannot even be printed."""
    failure = failure_of(error, _is_machinery)
    trace = "" if failure.traceback is None else failure.traceback.replace(f"{root}/", "").strip()
    trace = last_lines(trace, _LONGEST_TRACEBACK)
    if issubclass(type(error), SystemExit):
        code = SystemExit.__dict__["code"].__get__(error)
        message = f"importing {entry_module!r} called sys.exit({'' if code is None else shown(code)})"
        return LoadError(f"{message}: a module that is imported must not exit", trace)
    summary = plain_text(failure.message.replace(f"{root}/", ""), _LONGEST_SUMMARY)
    advice = _advice(error, entry_module)
    return LoadError(f"importing {entry_module!r} failed: {summary}{_where(error, root)}{advice}", trace)


def _where(error: BaseException, root: Path) -> str:
    """`` (data_ingest/__init__.py:31)``: the innermost line of the package itself."""
    if issubclass(type(error), SyntaxError):
        return ""  # it says so itself
    found = ""
    for file, line in frames_of(error):
        path = Path(file)
        if path.is_relative_to(root):
            found = f" ({plain_text(path.relative_to(root).as_posix(), _LONGEST_SUMMARY)}:{line})"
    return found


def _advice(error: BaseException, entry_module: str) -> str:
    if issubclass(type(error), ModuleNotFoundError):
        missing = ImportError.__dict__["name"].__get__(error)
        if not issubclass(type(missing), str) or not missing:
            return ""
        name = plain_text(missing, _LONGEST_SUMMARY).partition(".")[0]
        if name == entry_module.partition(".")[0]:
            return ": the archive has no such module; see python.entry_module in manifest.json"
        return f": put {name!r} into the entry package or vendor/, or use a runtime image that has it"
    if issubclass(type(error), DefinitionError):
        return ": correct the decorator and pack again"
    return ""


def _is_machinery(filename: str) -> bool:
    return filename == __file__ or filename == importlib.__file__ or filename.startswith("<frozen importlib")


def _belongs(module: ModuleType, root: Path) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(place and Path(place).resolve().is_relative_to(root) for place in places)


def _origin(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or "built in"
