"""Say which rules between the parts of a manifest are broken. Pure: works on plain JSON, whatever else is wrong.

They are apart from the types, so that a typing error in one task does not hide a cycle among the others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cloaca.authoring.graph import describe_cycle, find_cycle
from cloaca.packages.faults import FAULTS_SHOWN, Fault, json_path
from cloaca.packages.nearest import did_you_mean
from cloaca.resources.names import trigger_object_name

_DEEPEST = 100


def readable(data: bytes) -> tuple[dict[str, Any] | None, list[Fault]]:
    """The document in ``data``, with what is wrong with it as JSON; None: it cannot be read at all."""
    repeated: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                repeated.append(key)
            found[key] = value
        return found

    try:
        text = data.decode("utf-8")  # RFC 8259, 8.1: JSON that systems exchange is UTF-8, without a byte order mark
    except UnicodeDecodeError as error:
        return None, [_whole("InvalidJson", f"is not UTF-8 (byte {error.start}: {error.reason}): save it as UTF-8")]
    if text.startswith("\ufeff"):
        return None, [_whole("InvalidJson", "begins with a byte order mark: save it as UTF-8 without one")]
    try:
        document = json.loads(text, object_pairs_hook=collect, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        message = f"is not JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        return None, [_whole("InvalidJson", message)]
    except (ValueError, RecursionError) as error:  # not text, a number of thousands of digits, nested too deep
        return None, [_whole("InvalidJson", f"is not JSON that can be read: {error}")]
    if not isinstance(document, dict):
        return None, [_whole("WrongType", f"is {_kind(document)}, but must be an object")]
    faults = [
        _whole("DuplicateField", f"the field {key!r} stands twice in one object: remove one of the two")
        for key in dict.fromkeys(repeated)
    ]
    return document, faults + _strange_values(document)


def broken_rules(document: Mapping[str, Any]) -> list[Fault]:
    """What is wrong between the parts of ``document``."""
    tasks = [(index, task) for index, task in enumerate(_items(document.get("tasks"))) if isinstance(task, Mapping)]
    triggers = [(i, trigger) for i, trigger in enumerate(_items(document.get("triggers"))) if _is_object(trigger)]
    faults: list[Fault] = []
    if document.get("tasks") == []:
        faults.append(Fault(path="tasks", rule="NoTasks", message="is empty: a package has at least one task"))
    faults += _repeated(tasks, "tasks", "id", "DuplicateTaskId")
    faults += _repeated(triggers, "triggers", "name", "DuplicateTriggerName")
    faults += _colliding(document.get("package"), triggers)
    faults += _dependencies(tasks)
    return faults


def _dependencies(tasks: Sequence[tuple[int, Mapping[str, Any]]]) -> Iterable[Fault]:
    ids = {task["id"]: None for _, task in tasks if isinstance(task.get("id"), str)}
    graph: dict[str, list[str]] = {}
    faults = 0
    for index, task in tasks:
        task_id = task.get("id")
        needs = [(place, needed) for place, needed in enumerate(_items(task.get("dependencies")))]
        for place, needed in needs:
            if isinstance(needed, str) and needed not in ids:
                faults += 1
                hint = did_you_mean(needed, ids) if faults <= FAULTS_SHOWN else ""  # the rest is not shown
                yield Fault(
                    path=f"tasks[{index}].dependencies[{place}]",
                    rule="InvalidDependency",
                    message=f"task {task_id!r} depends on unknown task {needed!r}{hint}",
                )
        if isinstance(task_id, str):
            graph.setdefault(task_id, []).extend(needed for _, needed in needs if isinstance(needed, str))
    cycle = find_cycle(graph)
    if cycle is not None:
        yield Fault(
            path="tasks", rule="DependencyCycle", message=f"the dependencies run in a circle: {describe_cycle(cycle)}"
        )


def _repeated(items: Sequence[tuple[int, Mapping[str, Any]]], where: str, field: str, rule: str) -> Iterable[Fault]:
    first: dict[str, int] = {}
    for index, item in items:
        name = item.get(field)
        if not isinstance(name, str):
            continue
        if name in first:
            message = f"{name!r} is also the {field} of {where}[{first[name]}]: rename one of the two"
            yield Fault(path=f"{where}[{index}].{field}", rule=rule, message=message)
        else:
            first[name] = index


def _colliding(package: Any, triggers: Sequence[tuple[int, Mapping[str, Any]]]) -> Iterable[Fault]:
    """Different names of triggers whose Trigger objects would have one name."""
    package_name = package.get("name") if isinstance(package, Mapping) else None
    if not isinstance(package_name, str):
        package_name = "package"
    first: dict[str, tuple[int, str]] = {}
    for index, item in triggers:
        name = item.get("name")
        if not isinstance(name, str) or not _is_text(name):
            continue
        other, known = first.setdefault(trigger_object_name(package_name, name), (index, name))
        if known != name:
            message = (
                f"{name!r} and {known!r} (triggers[{other}]) would both be the Trigger object "
                f"{trigger_object_name(package_name, name)!r}: rename one of the two"
            )
            yield Fault(path=f"triggers[{index}].name", rule="TriggerNamesCollide", message=message)


def _strange_values(document: dict[str, Any]) -> list[Fault]:
    """What JSON text can say and nothing else can keep: infinite numbers, halves of characters, endless nesting."""
    faults: list[Fault] = []
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), document)]
    while waiting:
        steps, value = waiting.pop()
        children: Iterable[tuple[str | int, Any]] = ()
        if isinstance(value, dict):
            children = value.items()
            bad = next((key for key in value if not _is_text(key)), None)
            if bad is not None:
                faults.append(_strange(steps, f"has the key {bad!r}, which is not valid Unicode"))
        elif isinstance(value, list):
            children = enumerate(value)
        elif isinstance(value, float) and not math.isfinite(value):
            faults.append(_strange(steps, "is a number that is too large"))
        elif isinstance(value, str) and not _is_text(value):
            faults.append(_strange(steps, f"{value[:40]!r} is not valid Unicode"))
        if len(steps) >= _DEEPEST and children:
            faults.append(_strange(steps[:5], f"is nested more than {_DEEPEST} levels deep"))
            continue
        waiting.extend(((*steps, step), child) for step, child in children)
    return faults


def _strange(steps: tuple[str | int, ...], message: str) -> Fault:
    return Fault(path=json_path(steps).encode("utf-8", "replace").decode(), rule="InvalidValue", message=message)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", str: "a text", list: "a list", int: "a number"}
    return names.get(type(value), "a number")


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _whole(rule: str, message: str) -> Fault:
    return Fault(path="", rule=rule, message=message)
