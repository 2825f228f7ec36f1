"""The operator's settings on a cluster, from its environment."""

from __future__ import annotations

import pytest
from cloacina_operator.cluster_settings import read_cluster_settings
from cloacina_operator.settings import SettingsError


def test_limits_of_pollers_reach_the_pods() -> None:
    given = {"CLOACINA_IMAGE": "i:1", "CLOACINA_WORKER_MEMORY": "1000000", "CLOACINA_JITTER": "0"}

    pods = read_cluster_settings(given).pods

    assert (pods.worker_memory, pods.jitter) == (1_000_000, 0.0)


def test_all_that_is_wrong_is_said_at_once() -> None:
    given = {"CLOACINA_JITTER": "much", "CLOACINA_WORKER_MEMORY": "0", "CLOACINA_MAX_RUNS": "x"}

    with pytest.raises(SettingsError) as refused:
        read_cluster_settings(given)

    assert str(refused.value).split("; ") == [
        "CLOACINA_IMAGE must be set: the runtime image of pods, where a package names none",
        "CLOACINA_WORKER_MEMORY is '0', but must be a whole number of at least 1",
        "CLOACINA_JITTER is 'much', but must be a number from 0 to 1",
        "CLOACINA_MAX_RUNS is 'x', but must be a whole number of at least 1",
    ]
