"""Each part is killed while a file fires: its run happens, and it happens once."""

from __future__ import annotations

import time

import pytest
from cluster.story.scene import SYSTEM, Scene

pytestmark = pytest.mark.xdist_group("node")  # one node for all, in one process of the tests

DONE = ["first 1.0.0", "begun 1.0.0", "ended 1.0.0"]
OUTAGE = 30.0  # seconds


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
