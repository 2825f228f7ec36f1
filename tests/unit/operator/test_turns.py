"""Whose run starts next when more want to than may: namespaces take turns, packages within them, and nobody starves."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from cloacina_operator.core.turns import RunLimits, Turns

from cloaca.resources import ObjectMeta, Ref, WorkflowRun
from cloaca.resources.run import RunSpec
from cloaca.resources.trigger import PackageReference


def run(name: str) -> WorkflowRun:
    """``a/p/1`` is a run of package p in namespace a."""
    namespace, package, _ = name.split("/")
    spec = RunSpec(workflow="w", package_ref=PackageReference(name=package))
    return WorkflowRun(metadata=ObjectMeta(name=name, namespace=namespace), spec=spec)


@dataclass
class World:
    """Runs that wait and runs that have a process; those that are woken are looked at in that order."""

    limits: RunLimits
    running: list[Ref] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    queue: list[Ref] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.turns = Turns(
            self.limits,
            running=lambda: self.running,
            package_of=lambda ref: ref.name.split("/")[1],
            wake=self.queue.append,
        )

    def look(self, *names: str) -> None:
        for name in names:
            said = self.turns.hindrance(run(name))
            if said is None:
                self.running.append(run(name).ref)
                self.started.append(name)
            else:
                self.said[name] = said

    def end(self, name: str) -> None:
        self.running.remove(run(name).ref)
        self.settle()

    def settle(self) -> None:
        """Look at whoever is woken, until nobody is."""
        self.turns.wake()
        while self.queue:
            self.look(self.queue.pop(0).name)
            self.turns.wake()
            self.queue[:] = [ref for ref in dict.fromkeys(self.queue) if ref not in self.running]


def many(place: str, count: int) -> list[str]:
    return [f"{place}/{number}" for number in range(count)]


def test_as_many_start_as_may_and_the_next_when_one_has_ended() -> None:
    world = World(RunLimits(total=2))
    world.look("a/p/1", "a/p/2", "a/p/3", "a/p/4")
    assert world.started == ["a/p/1", "a/p/2"]
    assert world.said["a/p/3"] == "as many runs as may run at once are running (2)"
    world.end("a/p/1")
    assert world.started[2:] == ["a/p/3"]
    assert world.turns.count() == 1


def test_a_tenant_with_thousands_of_runs_delays_the_run_of_another_by_one_process() -> None:
    world = World(RunLimits(total=1))
    world.look(*many("greedy/p", 5_000))
    world.look("modest/p/0")
    world.end("greedy/p/0")
    assert world.started[1:] == ["modest/p/0"]


def test_namespaces_take_turns_and_packages_within_one() -> None:
    world = World(RunLimits(total=1))
    world.look(*many("a/p", 3), *many("a/q", 2), *many("b/p", 3))
    while world.running:
        world.end(world.started[-1])
    assert world.started == [
        "a/p/0", "b/p/0", "a/q/0", "b/p/1", "a/p/1", "b/p/2", "a/q/1", "a/p/2",
    ]  # fmt: skip


def test_whoever_comes_late_does_not_overtake_those_who_wait() -> None:
    world = World(RunLimits(total=1))
    world.look("a/p/0", "a/p/1")
    world.running.clear()  # its process has ended, and nobody was woken yet
    world.look("a/p/2")
    assert world.started == ["a/p/0"]
    assert world.said["a/p/2"] == "other runs have waited longer for the next free place"
    world.settle()
    assert world.started == ["a/p/0", "a/p/1"]


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (RunLimits(total=9, per_namespace=2), "as many runs as one namespace may have at once are running in a (2)"),
        (RunLimits(total=9, per_package=2), "as many runs as one package may have at once are running of 'p' (2)"),
    ],
    ids=["of one namespace", "of one package"],
)
def test_a_limit_holds_its_own_and_nobody_else(limits: RunLimits, said: str) -> None:
    world = World(limits)
    world.look(*many("a/p", 3))
    world.look("b/q/0")
    assert world.started == ["a/p/0", "a/p/1", "b/q/0"]
    assert world.said == {"a/p/2": said}
    world.end("a/p/1")
    assert world.started[-1] == "a/p/2"


def test_a_package_that_has_as_many_as_it_may_keeps_no_other_package_of_its_namespace() -> None:
    world = World(RunLimits(total=9, per_namespace=2, per_package=1))
    world.look(*many("a/p", 3), *many("a/q", 2))
    assert world.started == ["a/p/0", "a/q/0"]
    world.end("a/q/0")
    assert world.started[2:] == ["a/q/1"]


def test_one_that_does_not_wait_any_more_keeps_nobody() -> None:
    world = World(RunLimits(total=1))
    world.look(*many("a/p", 3))
    world.turns.leave(run("a/p/1").ref)
    world.end("a/p/0")
    assert world.started[1:] == ["a/p/2"]
    assert world.turns.count() == 0


def test_a_limit_that_is_raised_lets_the_next_ones_in() -> None:
    world = World(RunLimits(total=1))
    world.look(*many("a/p", 4))
    world.turns.limits = RunLimits(total=3)
    world.settle()
    assert world.started == ["a/p/0", "a/p/1", "a/p/2"]
