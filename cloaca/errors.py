"""The exception tree: one root, and a class only where somebody catches it.

Where the authoring API promises a built-in exception, ours inherits from it as well, so that programs which catch
``ValueError`` or ``KeyError`` go on working. What a runner raises about its arguments, its database or its state is a
``ValueError``.
"""

from __future__ import annotations


class CloacaError(Exception):
    """Anything that this project raises on purpose; the message says what happened, to what, and what to do next.

    >>> import cloaca
    >>> try:
    ...     cloaca.Context({"when": object()})
    ... except cloaca.CloacaError as error:
    ...     print(type(error).__name__, isinstance(error, ValueError))
    ContextError True
    """


# --- authoring -------------------------------------------------------------------------------------------------


class DefinitionError(CloacaError, ValueError):
    """A workflow, task or trigger is declared wrongly; found when it is declared, before anything runs."""


class ContextError(CloacaError, ValueError):
    """A context was given something that it cannot hold: not JSON, or more than the limit."""


class ContextKeyError(CloacaError, KeyError):
    """A context has no such key."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class VariableError(CloacaError, KeyError):
    """An environment variable that ``var()`` reads is not set."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class TenantError(CloacaError, RuntimeError):
    """A tenant could not be made or removed, or the database is not one that can have tenants."""


# --- packages --------------------------------------------------------------------------------------------------


class PackageError(CloacaError):
    """An archive, its manifest or its code cannot be used; each subclass says at which step."""


class BuildError(PackageError, ValueError):
    """The folder cannot be packed: its files, or what its pyproject.toml says; the message says what to add."""


class ArchiveError(PackageError, ValueError):
    """The bytes are no usable archive: not a tar, truncated, unsafe paths, over a limit."""


class ManifestError(PackageError, ValueError):
    """The manifest breaks one or more rules; the message lists every fault with its JSON path."""


class AgreementError(PackageError, ValueError):
    """The names in the code and in the manifest do not agree; the message lists every difference."""


class LoadError(PackageError):
    """Importing the entry module failed; ``traceback_text`` says where, if the code got that far."""

    def __init__(self, message: str, traceback_text: str = "") -> None:
        super().__init__(message)
        self.traceback_text = traceback_text


class PythonUnsupported(LoadError):
    """The manifest's requires_python does not allow the Python that would import the package."""


class ImportTimedOut(LoadError):
    """Importing the entry module took too long."""


class ImportCrashed(LoadError):
    """Importing the entry module ended its process without an answer."""


class SourceError(PackageError):
    """The archive could not be had from where the package says it is."""


# --- store -----------------------------------------------------------------------------------------------------


class StoreError(CloacaError):
    """The store refused or failed; each subclass says how."""


class NotFound(StoreError, KeyError):
    """No such object, or it was deleted and made again since it was read."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class AlreadyExists(StoreError):
    """The name is taken. For a run this is the lock: somebody submitted it already."""


class Conflict(StoreError):
    """The object changed since it was read. Look again, decide again."""


class Invalid(StoreError, ValueError):
    """The object breaks its schema; the message lists every fault with its path."""


class Unreadable(Invalid):
    """The stored object is not one that this version can read; it is left alone until it changes."""


class StoreUnavailable(StoreError, ValueError):
    """The store cannot be opened or reached, or is full; what was written before stands."""


class Forbidden(StoreUnavailable):
    """The store does not let us: no right, or a rule of the place refuses it. Another try helps when that changes."""


# --- execution -------------------------------------------------------------------------------------------------


class WorkflowNotFound(CloacaError, KeyError, ValueError):
    """No workflow is registered under that name."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class TaskTimeout(CloacaError, TimeoutError):
    """A task took longer than it may."""


class TaskResultError(CloacaError, TypeError):
    """A task returned something that is neither its context nor None."""


class RunnerClosed(CloacaError, RuntimeError, ValueError):
    """The runner takes no more work: it was shut down, or belongs to the process that this one was forked from."""


class RunLost(CloacaError, ValueError):
    """The run is no longer this process's to write: deleted, ended by someone else, or given to another attempt.

    Where another process resumed it, because this one was silent for too long, that one brings it to its end.
    """


class TriggerResultError(CloacaError, TypeError):
    """A trigger returned something that is not a TriggerResult."""


class ScheduleNotFound(CloacaError, KeyError, ValueError):
    """There is no cron schedule or trigger of that id or name."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""
