"""Workflows that several tests of the engine run, and how their tasks ended."""

from __future__ import annotations

from typing import Any

import cloaca
from cloaca.authoring.workflow import Workflow
from cloaca.resources.recorded import RecordedStatus


def phases(status: RecordedStatus) -> dict[str, str]:
    return {task.id: task.phase.value for task in status.tasks}


def one(function: Any, **arguments: Any) -> Workflow:
    """A workflow of one task ``only``, tried once unless the arguments say otherwise."""
    with cloaca.WorkflowBuilder("w") as builder:
        cloaca.task(id="only", **{"retry_attempts": 0, "retry_delay_ms": 1, **arguments})(function)
    return builder.build()


def diamond() -> Workflow:
    with cloaca.WorkflowBuilder("diamond") as builder:

        @cloaca.task()
        def top(context: Any) -> Any:
            context["path"] = ["top"]
            return context

        @cloaca.task(dependencies=["top"])
        def left(context: Any) -> Any:
            context["path"] = [*context["path"], "left"]
            context["winner"] = "left"

        @cloaca.task(dependencies=["top"])
        async def right(context: Any) -> Any:
            context["path"] = [*context["path"], "right"]
            context["winner"] = "right"

        @cloaca.task(dependencies=[left, right])
        def bottom(context: Any) -> Any:
            context["path"] = [*context["path"], "bottom"]

    return builder.build()
