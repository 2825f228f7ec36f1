"""What pods, Jobs and Deployments say is told in the words of the object that a person applied."""

from datetime import datetime, timezone
from typing import Any

import pytest
from cloacina_operator.core.packages import Hindrance
from cloacina_operator.core.runs import Execution
from cloacina_operator.core.trouble import execution_of, last_words, of_deployment, of_pod
from cloacina_operator.executors.watched import slim

from cloaca.resources.conditions import POD_TROUBLE

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
ENDED = datetime(2026, 3, 28, 8, 59, tzinfo=timezone.utc)
JOB: dict[str, Any] = {"metadata": {"name": "r-1", "annotations": {"cloacina.io/attempt": "2"}}, "status": {}}


def pod(phase: str = "Pending", **changes: Any) -> dict[str, Any]:
    """A pod as it is kept."""
    main = changes.pop("main", None)
    status = {"phase": phase, **changes}
    if main is not None:
        status["containerStatuses"] = [{"name": "main", "image": "team/image:1", "restartCount": 0, **main}]
    limits = {"resources": {"limits": {"memory": "64Mi"}}}
    return slim(
        {
            "metadata": {"name": "r-1-x7k2p", "creationTimestamp": "2026-03-28T08:58:00Z"},
            "spec": {"containers": [{"name": "main", **limits}]},
            "status": status,
        }
    )


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}, **more}


def terminated(code: int, reason: str = "Error", message: str = "", **more: Any) -> dict[str, Any]:
    ended = {"exitCode": code, "reason": reason, "message": message, "finishedAt": "2026-03-28T08:59:00Z", **more}
    return {"state": {"terminated": ended}}


def scheduled(status: str, reason: str = "", message: str = "") -> list[dict[str, Any]]:
    return [{"type": "PodScheduled", "status": status, "reason": reason, "message": message}]


NO_NODE = "0/3 nodes are available: 3 Insufficient memory."


@pytest.mark.parametrize(
    ("seen", "reason", "words"),
    [
        pytest.param(pod(), None, "", id="just made"),
        pytest.param(pod(main=waiting("ContainerCreating")), None, "", id="being made"),
        pytest.param(pod("Running", main={"state": {"running": {}}}), None, "", id="running"),
        pytest.param(
            pod(main=waiting("ImagePullBackOff", 'Back-off pulling image "team/image:1"')),
            "ImagePullBackOff",
            "'team/image:1' cannot be pulled: Back-off",
            id="image, backing off",
        ),
        pytest.param(pod(main=waiting("ErrImagePull", "not found")), "ImagePullBackOff", "not found", id="image"),
        pytest.param(pod(main=waiting("InvalidImageName")), "ImagePullBackOff", "InvalidImageName", id="image name"),
        pytest.param(
            pod(main=waiting("CreateContainerConfigError", 'secret "warehouse" not found')),
            "ContainerConfigError",
            'secret "warehouse" not found',
            id="secret that is not there",
        ),
        pytest.param(
            pod(conditions=scheduled("False", "Unschedulable", NO_NODE)), "Unschedulable", NO_NODE, id="no node"
        ),
        pytest.param(pod(conditions=scheduled("False", "SchedulingGated")), None, "", id="gated on purpose"),
        pytest.param(
            pod(
                "Running",
                main=waiting(
                    "CrashLoopBackOff",
                    restartCount=4,
                    lastState={"terminated": {"exitCode": 3, "reason": "Error", "message": "no such table"}},
                ),
            ),
            "CrashLoopBackOff",
            "ended 4 times and is started again less and less often; exit code 3: no such table",
            id="crash loop",
        ),
        pytest.param(
            pod(
                "Running",
                main=waiting("CrashLoopBackOff", lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
            ),
            "OOMKilled",
            "memory limit of 64Mi",
            id="crash loop for want of memory",
        ),
    ],
)
def test_what_keeps_a_pod_from_running(seen: dict[str, Any], reason: str | None, words: str) -> None:
    found = of_pod(seen)

    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert found.reason == reason
        assert words in found.message
        assert reason in POD_TROUBLE


QUOTA = (
    'Error creating: pods "r-1-x7k2p" is forbidden: exceeded quota: compute, requested: memory=1Gi, '
    "used: memory=2Gi, limited: memory=2Gi"
)
PSA = 'Error creating: pods "r-1-x7k2p" is forbidden: violates PodSecurity "restricted:latest": hostPath volumes'


def refusal(message: str, at: str = "2026-03-28T08:59:00Z") -> dict[str, Any]:
    return {"metadata": {"name": "e"}, "reason": "FailedCreate", "message": message, "lastTimestamp": at}


DRAINED = Execution(
    attempt=2,
    ended_at=ENDED,
    how="pod 'r-1-x7k2p' was evicted: Eviction API: evicting",
    reason="Evicted",
    interrupted=True,
)


@pytest.mark.parametrize(
    ("pods", "refusals", "expected"),
    [
        pytest.param([], [], Execution(attempt=2), id="the Job was just made"),
        pytest.param([pod("Running", main={"state": {"running": {}}})], [], Execution(attempt=2), id="it runs"),
        pytest.param(
            [pod("Succeeded", main=terminated(0, "Completed"))],
            [],
            Execution(attempt=2, ended_at=ENDED, how="container 'main' of pod 'r-1-x7k2p': exit code 0"),
            id="ended well",
        ),
        pytest.param(
            [pod("Failed", main=terminated(75))],
            [],
            Execution(
                attempt=2,
                ended_at=ENDED,
                how="container 'main' of pod 'r-1-x7k2p': exit code 75",
                interrupted=True,
            ),
            id="asked to stop: no failure",
        ),
        pytest.param(
            [pod("Failed", main=terminated(1, message="Traceback: boom"))],
            [],
            Execution(
                attempt=2,
                ended_at=ENDED,
                how="container 'main' of pod 'r-1-x7k2p': exit code 1: Traceback: boom",
                reason="ProcessDied",
            ),
            id="died",
        ),
        pytest.param(
            [pod("Failed", main=terminated(137, "OOMKilled"))],
            [],
            Execution(
                attempt=2,
                ended_at=ENDED,
                how="container 'main' of pod 'r-1-x7k2p' was killed because it passed its memory limit of 64Mi: "
                "raise resources.limits.memory in spec.podTemplate, or use less",
                reason="OOMKilled",
            ),
            id="out of memory",
        ),
        pytest.param(
            [pod("Failed", reason="Evicted", message="The node was low on resource: ephemeral-storage.")],
            [],
            Execution(
                attempt=2,
                ended_at=NOW,
                how="pod 'r-1-x7k2p' was evicted: The node was low on resource: ephemeral-storage.",
                reason="Evicted",
            ),
            id="evicted by the node",
        ),
        pytest.param(
            [
                pod(
                    "Failed",
                    main=terminated(137),
                    conditions=[
                        {"type": "DisruptionTarget", "status": "True", "message": "Eviction API: evicting"},
                    ],
                )
            ],
            [],
            DRAINED,
            id="drained, and killed after its grace",
        ),
        pytest.param(
            [
                pod(
                    "Failed",
                    main=terminated(75),
                    conditions=[
                        {"type": "DisruptionTarget", "status": "True", "message": "Eviction API: evicting"},
                    ],
                )
            ],
            [],
            DRAINED,
            id="drained, and stopped in time",
        ),
        pytest.param(
            [
                pod(
                    "Failed",
                    reason="Evicted",
                    message="The node was low on resource: memory.",
                    conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}],
                )
            ],
            [],
            Execution(
                attempt=2,
                ended_at=NOW,
                how="pod 'r-1-x7k2p' was evicted: The node was low on resource: memory.",
                reason="Evicted",
            ),
            id="evicted since it used too much: a failure",
        ),
    ],
)
def test_what_became_of_an_attempt(
    pods: list[dict[str, Any]], refusals: list[dict[str, Any]], expected: Execution
) -> None:
    assert execution_of(JOB, pods, refusals, NOW) == expected


@pytest.mark.parametrize(
    ("message", "reason"),
    [pytest.param(QUOTA, "QuotaExceeded", id="quota"), pytest.param(PSA, "PodForbidden", id="pod security")],
)
def test_a_pod_that_may_not_be_made_is_told(message: str, reason: str) -> None:
    older = refusal("something else", "2026-03-28T08:00:00Z")

    seen = execution_of(JOB, [], [older, refusal(message)], NOW)

    assert (seen.ended_at, seen.reason) == (None, reason)
    assert message in seen.how


def test_a_job_that_failed_without_a_pod_left() -> None:
    condition = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often",
                 "lastTransitionTime": "2026-03-28T08:59:00Z"}  # fmt: skip

    seen = execution_of({**JOB, "status": {"conditions": [condition]}}, [], [], NOW)

    expected = Execution(attempt=2, ended_at=ENDED, how="its pod was deleted (too often)", reason="PodDeleted")
    assert seen == expected


def test_the_newest_pod_of_a_deployment_tells() -> None:
    old = pod("Failed", main=terminated(1))
    new = pod(main=waiting("ErrImagePull", "not found"))
    new["metadata"]["creationTimestamp"] = "2026-03-28T08:59:30Z"

    found = of_deployment({"status": {}}, [old, new])

    assert found is not None
    assert found.reason == "ImagePullBackOff"


def test_a_deployment_whose_pods_are_refused() -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": QUOTA}

    found = of_deployment({"status": {"conditions": [condition]}}, [])

    assert found is not None
    assert found.reason == "QuotaExceeded"


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(pod("Running", main={"state": {"running": {}}}), (False, "", None), id="not yet"),
        pytest.param(pod("Succeeded", main=terminated(0, "Completed", "words")), (True, "words", None), id="words"),
        pytest.param(
            pod("Failed", main=terminated(139)),
            (True, "", Hindrance(reason="ProcessDied", message="container 'main' of pod 'r-1-x7k2p': exit code 139")),
            id="without a word",
        ),
    ],
)
def test_last_words_of_an_inspection(seen: dict[str, Any], expected: tuple[bool, str, Hindrance | None]) -> None:
    assert last_words(seen) == expected
