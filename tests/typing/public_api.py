"""What a type checker sees of ``import cloaca``. Checked by ``make types``, never run."""

from __future__ import annotations

from typing import Any

from typing_extensions import assert_type

import cloaca

with cloaca.WorkflowBuilder("typed") as builder:

    @cloaca.task(id="extract", retry_attempts=2, retry_backoff="fixed")
    def extract(context: cloaca.Context) -> cloaca.Context:
        context.set("rows", 3)
        return context

    @cloaca.task(dependencies=[extract, "extract"])
    async def load(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        assert_type(handle.is_slot_held(), bool)


@cloaca.trigger(workflow="typed", poll_interval="5s")
def inbox() -> cloaca.TriggerResult:
    return cloaca.TriggerResult.fire({"file": "a.csv"}, key="a.csv")


def program(url: str) -> None:
    assert_type(extract(cloaca.Context()), cloaca.Context)  # a decorated function stays what it was
    assert_type(inbox(), cloaca.TriggerResult)
    assert_type(builder.build().topological_sort(), list[str])
    assert_type(cloaca.RetryPolicy.builder().max_attempts(1).build(), cloaca.RetryPolicy)
    assert_type(cloaca.Context({"a": 1}).to_dict(), dict[str, Any])
    with cloaca.DefaultRunner.with_config(url, cloaca.DefaultRunnerConfig(max_concurrent_tasks=8)) as runner:
        result = runner.execute("typed", {"a": 1})
        assert_type(result, cloaca.WorkflowResult)
        assert_type(result.final_context, cloaca.Context)
        assert_type(result.error_message, str | None)
        assert_type(runner.register_cron_workflow("typed", "0 2 * * *", "UTC"), str)
        assert_type(runner.list_cron_schedules(None, None, None), list[dict[str, Any]])
        assert_type(runner.get_trigger_schedule("inbox"), dict[str, Any] | None)


def mistakes(runner: cloaca.DefaultRunner) -> None:
    """Each is an error to the checker; a needless ``ignore`` would be one too."""
    runner.execute(5)  # type: ignore[arg-type]  # a name is a text
    cloaca.DefaultRunnerConfig(threads=4)  # type: ignore[call-arg]  # no such setting
    cloaca.task(retry_attempts="3")  # type: ignore[arg-type]  # a number
