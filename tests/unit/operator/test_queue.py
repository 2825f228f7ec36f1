"""The queue of what is to be looked at: each once, namespaces in turn."""

from __future__ import annotations

from cloacina_operator.shell.queue import Queue

from cloaca.resources import Ref


def ref(namespace: str, number: int) -> Ref:
    return Ref("WorkflowRun", namespace, f"run-{number}")


async def test_a_namespace_with_thousands_of_objects_keeps_no_other_waiting() -> None:
    queue = Queue()
    for number in range(5_000):
        queue.add(ref("greedy", number))
    queue.add(ref("modest", 0))
    queue.add(ref("modest", 1))
    taken = [await queue.get() for _ in range(5)]
    assert taken == [ref("greedy", 0), ref("modest", 0), ref("greedy", 1), ref("modest", 1), ref("greedy", 2)]
    assert len(queue) == 5_002


async def test_what_is_added_twice_is_looked_at_once_and_again_if_it_is_being_looked_at() -> None:
    queue = Queue()
    queue.add(ref("a", 0))
    queue.add(ref("a", 0))
    assert len(queue) == 1
    assert await queue.get() == ref("a", 0)
    queue.add(ref("a", 0))
    assert len(queue) == 1
    queue.done(ref("a", 0))
    assert await queue.get() == ref("a", 0)
    queue.done(ref("a", 0))
    assert len(queue) == 0
