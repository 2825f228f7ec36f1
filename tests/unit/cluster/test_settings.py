"""The operator's settings on a cluster, from its environment."""

from __future__ import annotations

import pytest
from cloacina_operator.cluster_settings import read_cluster_settings
from cloacina_operator.settings import SettingsError


def test_limits_of_pollers_reach_the_pods() -> None:
    given = {"IMAGE": "i:1", "WORKER_MEMORY": "1000000", "JITTER": "0", "POLLER_PORT": "0"}

    pods = read_cluster_settings({f"CLOACINA_{name}": value for name, value in given.items()}).pods

    assert (pods.worker_memory, pods.jitter, pods.poller_port) == (1_000_000, 0.0, 0)


def test_all_that_is_wrong_is_said_at_once() -> None:
    given = {"JITTER": "much", "WORKER_MEMORY": "0", "MAX_RUNS": "x", "POLLER_PORT": "80", "LEASE_DURATION": "12"}

    with pytest.raises(SettingsError) as refused:
        read_cluster_settings({f"CLOACINA_{name}": value for name, value in given.items()})

    assert str(refused.value).split("; ") == [
        "CLOACINA_IMAGE must be set: the runtime image of pods, where a package names none",
        "CLOACINA_WORKER_MEMORY is '0', but must be a whole number of at least 1",
        "CLOACINA_JITTER is 'much', but must be a number from 0 to 1",
        "CLOACINA_POLLER_PORT is '80', but must be a port from 1024 to 65535, or 0 for none",
        (
            "CLOACINA_LEASE_DURATION: a leader would stop up to 14 s after its last renewal, when another one leads "
            "since 12 s: the duration must be more than the renew deadline and two retry periods"
        ),
        "CLOACINA_MAX_RUNS is 'x', but must be a whole number of at least 1",
    ]
