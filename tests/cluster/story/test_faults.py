"""Each part is killed while a file fires: its run happens, and it happens once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
from cluster.story import orders
from cluster.story.scene import ROOT, SYSTEM, Scene
from cluster.story.stage import DATA
from groups import NODE

pytestmark = NODE

DONE = ["first 1.0.0", "begun 1.0.0", "ended 1.0.0"]
OUTAGE = 30.0  # seconds
WATCHES = 9  # of an operator: its Lease, our four kinds, Deployments, Jobs, pods, refusals


def test_the_operator_is_killed(orders_package: Scene) -> None:
    story = orders_package
    story.bring("before", held=True)
    story.await_effect("before", "begun 1.0.0")

    story.bring("at-once")
    story.kill("--all", namespace=SYSTEM)
    story.release("before")

    for file in ("before", "at-once"):
        story.await_run(story.run_of(file))
    assert (story.effects("before"), story.effects("at-once")) == (DONE, DONE)
    assert story.runs() == {"before": "Completed", "at-once": "Completed"}


@pytest.mark.long
def test_the_poller_is_killed(orders_package: Scene) -> None:
    story = orders_package
    story.bring("before")
    story.kill("-l", "cloacina.io/component=poller")
    story.bring("after")

    for file in ("before", "after"):
        story.await_run(story.run_of(file))
    assert (story.effects("before"), story.effects("after")) == (DONE, DONE)
    assert story.runs() == {"before": "Completed", "after": "Completed"}


def test_the_pod_of_a_run_is_killed_and_what_was_finished_does_not_run_again(orders_package: Scene) -> None:
    story = orders_package
    story.bring("one", held=True)
    story.await_effect("one", "begun 1.0.0")
    story.kill("-l", "cloacina.io/component=run")
    story.await_effect("one", "begun 1.0.0", 2)
    story.release("one")

    run = story.await_run(story.run_of("one"))
    assert story.effects("one") == ["first 1.0.0", "begun 1.0.0", "begun 1.0.0", "ended 1.0.0"]
    assert (run["status"]["attempt"], story.runs()) == (2, {"one": "Completed"})


@pytest.mark.long
@pytest.mark.parametrize(
    "drained",
    [
        pytest.param("cloacina.io/component", id="the operator stays"),
        pytest.param("app.kubernetes.io/name=cloacina", id="the operator goes too"),
    ],
)
def test_the_node_is_drained_while_a_run_is_under_way(story: Scene, drained: str) -> None:
    runs = {"backoffLimit": 0}  # nothing of it is eaten
    story.deploy("orders", orders.packed(), "1.0.0", podTemplate={"spec": DATA}, runs=runs)
    story.await_version("orders", "1.0.0")
    story.bring("one", held=True)
    story.await_effect("one", "begun 1.0.0")
    name = story.run_of("one")

    with story.drained(drained):
        story.bring("meanwhile")
        if drained == "cloacina.io/component":
            (told,) = story.until("the run to say why", lambda: story.events(name, "Evicted"))
            assert "was evicted: Eviction API: evicting; that is no failure, the next one resumes" in told
            for thing, condition in ((f"crun/{name}", "Started"), ("cpkg/orders", "Ready")):
                waits = partial(story.waits_for_a_node, thing, condition)
                assert "unschedulable" in story.until(f"{thing} to wait for a node", waits)
    story.await_effect("one", "begun 1.0.0", 2)
    story.release("one")

    status = story.await_run(name)["status"]
    assert (status["attempt"], status["failures"], status.get("message")) == (2, 0, None)
    story.await_run(story.run_of("meanwhile"))
    assert story.effects("one") == ["first 1.0.0", "begun 1.0.0", "begun 1.0.0", "ended 1.0.0"]
    assert story.effects("meanwhile") == DONE
    assert story.runs() == {"one": "Completed", "meanwhile": "Completed"}


@pytest.mark.long
def test_the_kubelet_restarts_an_operator_whose_watches_are_dead(orders_package: Scene) -> None:
    story = orders_package
    story.bring("before", held=True)
    story.await_effect("before", "begun 1.0.0")
    with silenceable(story) as silence:
        story.until("all watches to be silent", lambda: silence(5.0) >= WATCHES)
        story.bring("unheard")
        story.release("before")
        story.until("the operator to be restarted", lambda: operator(story)["restartCount"])

        for file in ("before", "unheard"):
            story.await_run(story.run_of(file))
        pod = operator_pod(story)["metadata"]["name"]
        assert any("failed liveness probe" in said for said in story.events(pod, "Killing", SYSTEM))
        red = "Liveness probe failed: HTTP probe failed with statuscode: 500"
        assert red in story.events(pod, "Unhealthy", SYSTEM)
        assert operator(story)["restartCount"] == 1
    assert (story.effects("before"), story.effects("unheard")) == (DONE, DONE)
    assert story.runs() == {"before": "Completed", "unheard": "Completed"}


@contextmanager
def silenceable(story: Scene) -> Iterator[Callable[[float], int]]:
    """The operator reaches the API server over a line that can be silenced, for the block."""
    server = urlsplit(story.plane.kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"))
    if story.node is None or server.hostname is None:
        pytest.skip("an operator in the cluster of $KUBECONFIG cannot be given a line of ours")
    command = [*story.plane.within, sys.executable, "-m", "cluster.proxy", server.hostname, str(server.port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    with subprocess.Popen(
        [*command, server.hostname], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as line:
        assert line.stdin is not None
        assert line.stdout is not None
        given, answers = line.stdin, line.stdout

        def silence(idle: float) -> int:
            given.write(f"{idle}\n")
            given.flush()
            return int(answers.readline())

        try:
            lead_over(
                story, f"KUBERNETES_SERVICE_HOST={server.hostname}", f"KUBERNETES_SERVICE_PORT={answers.readline()}"
            )
            yield silence
        finally:
            lead_over(story, "KUBERNETES_SERVICE_HOST-", "KUBERNETES_SERVICE_PORT-")
            line.kill()


def lead_over(story: Scene, *environment: str) -> None:
    """An operator with that environment leads, and none without."""
    deployment = "deployment/cloacina-operator"
    story.plane.kubectl("set", "env", "-n", SYSTEM, deployment, *(one.strip() for one in environment))
    story.plane.kubectl("rollout", "status", "-n", SYSTEM, deployment, "--timeout=100s")
    story.until("the old operator to go", lambda: len(operator_pods(story)) == 1)
    lease = ("get", "lease/cloacina-operator", "-n", SYSTEM, "-o", "jsonpath={.spec.holderIdentity}")
    story.until("the new one to lead", lambda: operator_pod(story)["metadata"]["name"] in story.plane.kubectl(*lease))


def operator_pods(story: Scene) -> list[Any]:
    found: list[Any] = json.loads(story.plane.kubectl("get", "pods", "-n", SYSTEM, "-o", "json"))["items"]
    return found


def operator_pod(story: Scene) -> Any:
    (pod,) = operator_pods(story)
    return pod


def operator(story: Scene) -> Any:
    """What the kubelet says of its container."""
    return operator_pod(story)["status"]["containerStatuses"][0]


@pytest.mark.long
def test_the_node_agent_is_restarted(orders_package: Scene) -> None:
    story = orders_package
    story.bring("before", held=True)
    story.await_effect("before", "begun 1.0.0")
    story.shell("(sleep 1; touch inbox/between; sleep 1; rm hold/before) >/dev/null 2>&1 &")
    with story.without("kubelet"):
        story.until("the fire", lambda: story.get(f"crun/{story.run_of('between')}"))

    for file in ("before", "between"):
        run = story.await_run(story.run_of(file))
        assert run["status"]["attempt"] == 1
    assert (story.effects("before"), story.effects("between")) == (DONE, DONE)
    assert story.runs() == {"before": "Completed", "between": "Completed"}


@pytest.mark.long
def test_the_api_server_is_away_for_half_a_minute_while_files_fire(orders_package: Scene) -> None:
    story = orders_package
    story.bring("before", held=True)
    story.await_effect("before", "begun 1.0.0")
    story.shell("(sleep 5; touch inbox/between; sleep 5; rm hold/before) >/dev/null 2>&1 &")
    with story.without("kube-apiserver"):
        time.sleep(OUTAGE)  # the trouble itself, not something to wait for
    story.until("everybody to be back", lambda: story.shell("touch inbox/after") or True)

    for file in ("before", "between", "after"):
        story.await_run(story.run_of(file))
    assert [story.effects(file) for file in ("before", "between", "after")] == [DONE, DONE, DONE]
    assert set(story.runs().values()) == {"Completed"}
    assert set(story.runs()) == {"before", "between", "after"}
