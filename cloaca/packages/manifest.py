"""Read ``manifest.json``, format version 2: every fault at once, each with its path. Pure.

The types below say what a manifest holds; ``rules`` says what must hold between its parts. What the manifest cannot
tell alone, such as whether the code has the workflow that a trigger names, is for ``agreement``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StrictBool, StrictStr
from pydantic import ValidationError as PydanticError
from pydantic_core import PydanticCustomError

from cloaca.authoring.duration import FORMS, parse_duration
from cloaca.authoring.trigger import MINIMUM_INTERVAL
from cloaca.errors import DefinitionError
from cloaca.packages.faults import Fault, ManifestFaults, json_path
from cloaca.packages.load import MANIFEST_NAME
from cloaca.packages.rules import broken_rules, readable
from cloaca.packages.versions import is_semantic, specifier_fault

MANIFEST_LIMIT = 1024 * 1024
FORMAT_VERSION = "2"
TARGETS = ("linux-x86_64", "linux-arm64", "macos-x86_64", "macos-arm64")

# --- the form of single values ------------------------------------------------------------------------------------

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_FUNCTION = re.compile(r"(?P<module>[^:\s]+):(?P<callable>[^:\s]+)")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_LONGEST_NAME = 253


def _broken(rule: str, message: str) -> PydanticCustomError:
    # Never a template of ours with text of theirs in it: pydantic would look for fields between braces.
    return PydanticCustomError("rule", "{rule} {message}", {"rule": rule, "message": message})


def _format_version(value: Any) -> Any:
    if value != FORMAT_VERSION:
        raise _broken("InvalidFormatVersion", f'is {_shown(value)}, but must be "2", the only format that is read')
    return value


def _language(value: Any) -> Any:
    if value == "rust":
        raise _broken("UnsupportedLanguage", "is 'rust', but only Python packages can be run here")
    if value != "python":
        raise _broken("UnsupportedLanguage", f"is {_shown(value)}, but must be 'python'")
    return value


def _package_name(value: str) -> str:
    if len(value) > _LONGEST_NAME or not _NAME.fullmatch(value):
        raise _broken("InvalidPackageName", f"{_shown(value)} is not letters, digits and '.', '_', '-' between them")
    return value


def _version(value: str) -> str:
    if not is_semantic(value):
        raise _broken("InvalidVersion", f"{_shown(value)} is not a semantic version, such as 1.0.0")
    return value


def _fingerprint(value: str) -> str:
    if not value.startswith("sha256:") or not value.removeprefix("sha256:").strip():
        raise _broken("InvalidFingerprint", f"{_shown(value)} is not 'sha256:' and a hash of the content")
    return value


def _target(value: str) -> str:
    if value not in TARGETS:
        raise _broken("UnsupportedTarget", f"{_shown(value)} is not a target; targets are {', '.join(TARGETS)}")
    return value


def _requires_python(value: str) -> str:
    fault = specifier_fault(value)
    if fault is not None:
        raise _broken("InvalidRequiresPython", f"{_shown(value)} {fault}; write it like >=3.10 (PEP 440)")
    return value


def _entry_module(value: str) -> str:
    if len(value) > _LONGEST_NAME or not _DOTTED.fullmatch(value):
        raise _broken("InvalidEntryModule", f"{_shown(value)} is not a module, such as data_ingest or flows.main")
    return value


def _function(value: str) -> str:
    match = _FUNCTION.fullmatch(value)
    if match is None or not _DOTTED.fullmatch(match["module"]):
        raise _broken("InvalidFunctionPath", f"{_shown(value)} is not 'module:callable', such as data_ingest:load")
    return value


def _poll_interval(value: Any) -> Any:
    try:
        seconds = parse_duration(value)
    except DefinitionError:
        raise _broken("InvalidTriggerPollInterval", f"{_shown(value)} is not a duration: write {FORMS}") from None
    if seconds < MINIMUM_INTERVAL:
        raise _broken("InvalidTriggerPollInterval", f"{_shown(value)} is too short: the shortest is 100ms")
    return value


def _trigger_workflow(value: Any) -> Any:
    if not isinstance(value, str) or not value.strip():
        raise _broken(
            "InvalidTriggerWorkflow", f"is {_shown(value)}, but must name the package, one of its workflows or a task"
        )
    return value


def _named(value: str) -> str:
    if not value.strip() or len(value) > _LONGEST_NAME or any(character in value for character in "\0\n\r/"):
        raise _broken("InvalidName", f"{_shown(value)} is no name: 1 to 253 characters, without '/' and line breaks")
    return value


def _moment(value: str) -> str:
    if _RFC3339.fullmatch(value):
        try:
            datetime.fromisoformat(value[:19])  # Python 3.10 reads neither Z nor every fraction of a second
        except ValueError:
            pass
        else:
            return value
    raise _broken("InvalidTimestamp", f"{_shown(value)} is not RFC 3339, such as 2026-03-28T09:00:00Z")


def _count(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1_000_000:
        raise _broken("WrongType", f"is {_shown(value)}, but must be a whole number from 0 to 1000000")
    return value


def _limit(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e10:
        raise _broken("WrongType", f"is {_shown(value)}, but must be a number of seconds above 0, or null for no limit")
    return value


def _or_empty(value: Any) -> Any:
    return () if value is None else value


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=repr)
    return text if len(text) <= 80 else f"{text[:77]}…"


# --- the types ----------------------------------------------------------------------------------------------------

Name = Annotated[StrictStr, AfterValidator(_named)]


class Part(BaseModel):
    """Base of every part of a manifest: frozen; unknown fields are kept, and told as warnings."""

    model_config = ConfigDict(extra="allow", frozen=True)


class PackageInfo(Part):
    """Who the package is."""

    name: Annotated[StrictStr, AfterValidator(_package_name)]
    version: Annotated[StrictStr, AfterValidator(_version)]
    description: StrictStr | None = None
    fingerprint: Annotated[StrictStr, AfterValidator(_fingerprint)]
    """``sha256:…`` over the content, by whoever packed it. Archives are told apart by their own digest."""
    targets: tuple[Annotated[StrictStr, AfterValidator(_target)], ...]


class PythonRuntime(Part):
    """What is imported, and by which Python."""

    requires_python: Annotated[StrictStr, AfterValidator(_requires_python)]
    entry_module: Annotated[StrictStr, AfterValidator(_entry_module)]


class TaskEntry(Part):
    """One task, as the manifest declares it."""

    id: Name
    function: Annotated[StrictStr, AfterValidator(_function)]
    dependencies: tuple[StrictStr, ...] = ()
    description: StrictStr | None = None
    retries: Annotated[int, BeforeValidator(_count)] = 0
    timeout_seconds: Annotated[int | float | None, BeforeValidator(_limit)] = None
    """None: no limit of its own."""


class TriggerEntry(Part):
    """One trigger, as the manifest declares it: this was reviewed and deployed, so it wins over the decorator."""

    name: Name
    trigger_type: StrictStr
    """Free text; the function is found by ``name`` alone."""
    workflow: Annotated[StrictStr, BeforeValidator(_trigger_workflow)]
    """The package, one of its workflows, or a task; ``agreement.resolve_workflow`` says which workflow that is."""
    poll_interval: Annotated[StrictStr, BeforeValidator(_poll_interval)]
    allow_concurrent: StrictBool = False
    config: dict[str, Any] | None = None


class Manifest(Part):
    """A valid manifest of a Python package."""

    format_version: Annotated[Literal["2"], BeforeValidator(_format_version)]
    package: PackageInfo
    language: Annotated[Literal["python"], BeforeValidator(_language)]
    python: PythonRuntime
    tasks: tuple[TaskEntry, ...]
    triggers: Annotated[tuple[TriggerEntry, ...], BeforeValidator(_or_empty)] = ()
    created_at: Annotated[StrictStr, AfterValidator(_moment)]
    signature: StrictStr | None = None
    rust: Any = None
    """Known, and not ours."""

    @property
    def name(self) -> str:
        """``package.name``."""
        return self.package.name

    @property
    def version(self) -> str:
        """``package.version``."""
        return self.package.version

    @property
    def entry_module(self) -> str:
        """``python.entry_module``."""
        return self.python.entry_module

    @property
    def file_name(self) -> str:
        """Of the archive: ``<name>-<version>.cloacina``."""
        return f"{self.name}-{self.version}.cloacina"

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each field that is unknown here: it is kept, and has no effect."""
        return tuple(f"{MANIFEST_NAME}: {path}: unknown field, kept without effect" for path in _unknown(self, ""))

    def to_json_bytes(self) -> bytes:
        """As it stands in an archive: the same manifest gives the same bytes."""
        document = self.model_dump(mode="json", exclude_unset=True)  # what is not stated stays unstated
        return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def _unknown(part: Part, prefix: str) -> Iterable[str]:
    yield from (f"{prefix}{name}" for name in part.model_extra or ())
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, Part):
            yield from _unknown(value, f"{prefix}{name}.")
        elif isinstance(value, tuple):
            for index, item in enumerate(value):
                if isinstance(item, Part):
                    yield from _unknown(item, f"{prefix}{name}[{index}].")


# --- reading ------------------------------------------------------------------------------------------------------


def parse_manifest(data: bytes) -> Manifest:
    """The manifest in ``data``. Raises ManifestFaults with everything that is wrong with it."""
    if len(data) > MANIFEST_LIMIT:
        raise ManifestFaults([Fault(path="", rule="TooLarge", message=f"is {len(data)} bytes, the limit is 1 MiB")])
    document, faults = readable(data)
    if document is None:
        raise ManifestFaults(faults)
    manifest = None
    try:
        manifest = Manifest.model_validate(document)
    except PydanticError as error:
        faults += [_fault(details) for details in error.errors(include_url=False, include_context=True)]
    faults += broken_rules(document)
    if faults or manifest is None:
        raise ManifestFaults(_in_order(faults, document))
    return manifest


def _fault(details: Mapping[str, Any]) -> Fault:
    path = json_path(details["loc"])
    kind = details["type"]
    if kind == "rule":
        return Fault(path=path, rule=details["ctx"]["rule"], message=details["ctx"]["message"])
    if path == "python" and (kind == "missing" or details["input"] is None):
        return Fault(path=path, rule="MissingRuntime", message="is missing: say requires_python and entry_module")
    if kind == "missing":
        if path == "tasks":
            return Fault(path=path, rule="NoTasks", message="is missing: a package has at least one task")
        return Fault(path=path, rule="MissingField", message="is missing")
    wanted = {"string": "a text", "tuple": "a list", "dict": "an object", "model": "an object", "bool": "true or false"}
    expected = next((words for prefix, words in wanted.items() if kind.startswith(prefix)), None)
    message = f"is {_shown(details['input'])}, but must be {expected}" if expected else str(details["msg"])
    return Fault(path=path, rule="WrongType", message=message)


_FIELDS = tuple(Manifest.model_fields)


def _in_order(faults: Iterable[Fault], document: Mapping[str, Any]) -> list[Fault]:
    """Without repeats, in the order of the fields."""
    top = {name: index for index, name in enumerate((*_FIELDS, *(key for key in document if key not in _FIELDS)))}

    def place(fault: Fault) -> tuple[int, int]:
        match = re.match(r"([^.\[]*)(?:\[(\d+)\])?", fault.path)
        name, index = (match[1], match[2]) if match else ("", None)
        return top.get(name, -1), int(index or 0)

    return sorted(dict.fromkeys(faults), key=place)
