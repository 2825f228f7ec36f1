"""What a type checker sees of ``import cloaca``. Checked by ``make types``, never run."""

from __future__ import annotations

from datetime import timedelta
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


def values() -> None:
    context = cloaca.Context({"a": 1})
    assert_type(context.to_json(), str)
    assert_type(cloaca.Context.from_json("{}"), cloaca.Context)
    context.set("b", [1, None])
    context.insert("c", {"d": True})
    context.update("a", 2.5)
    context.update_from_dict({"e": "f"})
    context["g"] = context.get("a", 0) or context.remove("a")
    assert_type("g" in context, bool)
    assert_type(len(context), int)

    fixed, linear = cloaca.BackoffStrategy.fixed(), cloaca.BackoffStrategy.linear(2.0)
    assert_type([fixed, linear, cloaca.BackoffStrategy.exponential(3.0, 1.0)], list[cloaca.BackoffStrategy])
    never, every = cloaca.RetryCondition.never(), cloaca.RetryCondition.all_errors()
    assert_type([never, every, cloaca.RetryCondition.transient_only()], list[cloaca.RetryCondition])
    assert_type(cloaca.RetryPolicy.default().max_attempts, int)
    steps = cloaca.RetryPolicy.builder().initial_delay(100).max_delay(1_000).with_jitter(False).backoff_strategy(fixed)
    assert_type(steps.retry_condition(cloaca.RetryCondition.error_pattern(["busy"])).build(), cloaca.RetryPolicy)

    assert_type(cloaca.TriggerResult.skip("nothing new").is_skip_result(), bool)
    assert_type(cloaca.TriggerResult.fire(context).is_fire_result(), bool)
    assert_type(str(cloaca.TaskNamespace(workflow_id="typed", task_id="load")), str)
    assert_type(cloaca.WorkflowContext("a", "b", "c").as_components(), tuple[str, str, str])
    assert_type(cloaca.var("X"), str)
    assert_type(cloaca.var_or("X", "y"), str)
    assert_type(cloaca.hello_world(), str)
    assert_type(cloaca.HelloClass().get_message(), str)
    assert_type(issubclass(cloaca.CloacaError, Exception), bool)


def workflows() -> None:
    other = cloaca.WorkflowBuilder("other", tenant="acme", package="sales", workflow="other")
    other.description("for the checker")
    other.tag("team", "data")
    other.add_task("extract")
    other.add_task(load)
    workflow = other.build()
    assert_type(workflow, cloaca.Workflow)
    assert_type(workflow.version, str)
    assert_type(workflow.get_execution_levels(), list[list[str]])
    assert_type(workflow.get_roots() + workflow.get_leaves(), list[str])
    assert_type(workflow.dependencies, dict[str, tuple[str, ...]])
    workflow.validate()
    cloaca.register_workflow_constructor("other", lambda: workflow)


async def waiting(handle: cloaca.TaskHandle) -> None:
    answer = handle.defer_until(lambda: True, poll_interval_ms=10)
    if answer is not None:
        await answer


def schedules(url: str) -> None:
    config = cloaca.DefaultRunnerConfig.default()
    assert_type(config.to_dict(), dict[str, Any])
    runner = cloaca.DefaultRunner.with_schema(url, "tenant")
    result = runner.execute("typed")
    assert_type(result.duration, timedelta)
    runner.update_cron_schedule("id", "0 3 * * *", None)
    runner.set_cron_schedule_enabled("id", False)
    assert_type(runner.get_cron_schedule("id"), dict[str, Any])
    assert_type(runner.get_cron_execution_history("id", None, None), list[dict[str, Any]])
    assert_type(runner.get_cron_execution_stats("2026-01-01T00:00:00Z"), dict[str, Any])
    runner.delete_cron_schedule("id")
    assert_type(runner.list_trigger_schedules(True), list[dict[str, Any]])
    assert_type(runner.get_trigger_execution_history("inbox", 10), list[dict[str, Any]])
    runner.set_trigger_enabled("inbox", True)
    assert_type(runner.shutdown(), None)


def tenants(url: str) -> None:
    admin = cloaca.DatabaseAdmin(url)
    credentials: cloaca.TenantCredentials = admin.create_tenant(cloaca.TenantConfig("schema", "user", None))
    assert_type(credentials.connection_string, str)
    assert_type(admin.remove_tenant("schema", "user"), None)


def mistakes(runner: cloaca.DefaultRunner) -> None:
    """Each is an error to the checker; a needless ``ignore`` would be one too."""
    runner.execute(5)  # type: ignore[arg-type]  # a name is a text
    cloaca.DefaultRunnerConfig(threads=4)  # type: ignore[call-arg]  # no such setting
    cloaca.task(retry_attempts="3")  # type: ignore[arg-type]  # a number
