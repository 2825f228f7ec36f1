"""The graph of a workflow as a run asks for it: worked out once, shared by all runs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

from cloaca.authoring import graph
from cloaca.authoring.workflow import Workflow


class Plan:
    """What follows from the dependencies of tasks alone. Never changes."""

    __slots__ = ("dependencies", "dependents", "leaves", "needs", "order", "roots", "uses")

    def __init__(self, dependencies: Mapping[str, Sequence[str]]) -> None:
        self.dependencies = {task: tuple(dict.fromkeys(needs)) for task, needs in dependencies.items()}
        self.dependents = graph.invert(dependencies)
        self.leaves = graph.leaves(dependencies)  # what nothing depends on
        self.order = graph.topological_order(dependencies)
        self.needs = {task: len(needs) for task, needs in self.dependencies.items()}
        self.uses = {task: len(dependents) for task, dependents in self.dependents.items()}
        self.roots = graph.roots(dependencies)


_PLANS: WeakKeyDictionary[Workflow, Plan] = WeakKeyDictionary()


def plan_of(workflow: Workflow) -> Plan:
    """The plan of ``workflow``."""
    plan = _PLANS.get(workflow)
    if plan is None:
        plan = _PLANS[workflow] = Plan(workflow.dependencies)
    return plan
