"""The order of tasks. Pure: works on ids and their dependencies alone."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Dependencies = Mapping[str, Sequence[str]]  # task id -> ids that it waits for


def unknown_dependencies(dependencies: Dependencies) -> list[tuple[str, str]]:
    """(task, missing id) for every dependency that is no task of the graph, in order of definition."""
    return [(task, needed) for task, needs in dependencies.items() for needed in needs if needed not in dependencies]


def find_cycle(dependencies: Dependencies) -> list[str] | None:
    """The tasks on one cycle, first one repeated at the end; None if there is none. Ignores unknown ids.

    >>> find_cycle({"a": ["b"], "b": ["a"]})
    ['a', 'b', 'a']
    """
    done: set[str] = set()
    for root in dependencies:
        if root in done:
            continue
        path: list[str] = [root]
        on_path = {root: 0}
        iterators = [iter(dependencies[root])]
        while iterators:  # depth first without recursion: a chain may be longer than the recursion limit
            needed = next(iterators[-1], None)
            if needed is None:
                iterators.pop()
                finished = path.pop()
                del on_path[finished]
                done.add(finished)
            elif needed in on_path:
                return [*path[on_path[needed] :], needed]
            elif needed in dependencies and needed not in done:
                on_path[needed] = len(path)
                path.append(needed)
                iterators.append(iter(dependencies[needed]))
    return None


def levels(dependencies: Dependencies) -> list[list[str]]:
    """Tasks by the length of their longest path from a root; within a level in order of definition.

    >>> levels({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]})
    [['a'], ['b', 'c'], ['d']]
    """
    waiting = {task: len(set(needs)) for task, needs in dependencies.items()}
    dependents = invert(dependencies)
    position = {task: index for index, task in enumerate(dependencies)}
    found: list[list[str]] = []
    level = [task for task, count in waiting.items() if count == 0]
    while level:
        found.append(level)
        following: list[str] = []
        for task in level:
            for dependent in dependents[task]:
                waiting[dependent] -= 1
                if waiting[dependent] == 0:
                    following.append(dependent)
        level = sorted(following, key=position.__getitem__)
    return found


def topological_order(dependencies: Dependencies) -> list[str]:
    """Every task after all that it depends on; stable for equal definitions."""
    return [task for level in levels(dependencies) for task in level]


def invert(dependencies: Dependencies) -> dict[str, list[str]]:
    """Task id -> ids of the tasks that wait for it, in order of definition."""
    dependents: dict[str, list[str]] = {task: [] for task in dependencies}
    for task, needs in dependencies.items():
        for needed in dict.fromkeys(needs):
            dependents[needed].append(task)
    return dependents


def leaves(dependencies: Dependencies) -> list[str]:
    """Tasks that nothing waits for, in order of definition."""
    needed: set[str] = set()
    for needs in dependencies.values():
        needed.update(needs)
    return [task for task in dependencies if task not in needed]


def roots(dependencies: Dependencies) -> list[str]:
    """Tasks that wait for nothing, in order of definition."""
    return [task for task, needs in dependencies.items() if not needs]


def describe_cycle(cycle: Iterable[str]) -> str:
    """``a → b → a``."""
    return " → ".join(cycle)
