"""Two operators and one Lease on a real API server."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

import pytest
from cloacina_operator.core.leadership import LeaseTimes
from cloacina_operator.hosts.lease import LeadershipLost, Lease
from cluster.control_plane import ControlPlane

from cloaca.store.kubernetes.api import Api
from cloaca.store.kubernetes.config import find_server, parse_url

PATIENCE = 30.0
TIMES = LeaseTimes(duration=6, renew_deadline=4, retry_period=0.5)


@pytest.fixture
async def api(control_plane: ControlPlane) -> AsyncIterator[Api]:
    made = Api(find_server(parse_url(f"kubernetes://{control_plane.kubeconfig}"), {}))
    yield made
    await made.close()


def candidate(api: Api, namespace: str, me: str) -> Lease:
    return Lease(api, namespace=namespace, name="operator", me=me, times=TIMES)


async def test_one_of_two_leads_and_the_other_follows_at_once_when_it_lets_go(api: Api, namespace: str) -> None:
    one, two = candidate(api, namespace, "one"), candidate(api, namespace, "two")
    await asyncio.wait_for(one.acquire(), PATIENCE)
    waiting = asyncio.ensure_future(two.acquire())
    keeping = asyncio.ensure_future(one.keep())
    done, _ = await asyncio.wait({waiting}, timeout=TIMES.retry_period * 4)
    assert not done, "nobody leads beside a leader that renews"

    keeping.cancel()
    await asyncio.wait({keeping})
    await one.release()

    await asyncio.wait_for(waiting, PATIENCE)
    assert two.leading


async def test_a_leader_that_dies_is_replaced_and_stops_if_it_was_not_dead(api: Api, namespace: str) -> None:
    one, two = candidate(api, namespace, "one"), candidate(api, namespace, "two")
    await asyncio.wait_for(one.acquire(), PATIENCE)

    await asyncio.wait_for(two.acquire(), PATIENCE)

    assert two.leading
    with pytest.raises(LeadershipLost, match="two leads now"):
        await asyncio.wait_for(one.keep(), PATIENCE)
    assert not one.leading


async def test_what_is_written_comes_back_through_the_watch(api: Api, namespace: str) -> None:
    one = candidate(api, namespace, "one")
    echoing = asyncio.ensure_future(one.watched.run())
    await asyncio.wait_for(one.watched.listed(), PATIENCE)
    before = one._echoed_at
    await one.acquire()
    async with asyncio.timeout(PATIENCE):
        while one._echoed_at == before:
            await asyncio.sleep(0.01)
    assert one.healthy()
    one._moved_at = one._echoed_at + 31
    assert not one.healthy()
    echoing.cancel()
    await asyncio.wait({echoing})


@contextmanager
def away(control_plane: ControlPlane) -> Iterator[None]:
    """The API server answers nobody meanwhile."""
    server = control_plane.processes["kube-apiserver"]
    server.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send_signal(signal.SIGCONT)


async def test_an_api_server_that_is_away_for_less_than_the_deadline_costs_nobody_the_lead(
    api: Api, namespace: str, control_plane: ControlPlane
) -> None:
    times = LeaseTimes(duration=30, renew_deadline=25, retry_period=0.5)
    one = Lease(api, namespace=namespace, name="operator", me="one", times=times)
    await asyncio.wait_for(one.acquire(), PATIENCE)
    keeping = asyncio.ensure_future(one.keep())
    with away(control_plane):
        await asyncio.wait({keeping}, timeout=4 * TIMES.retry_period)
    renewed = one._seen
    async with asyncio.timeout(PATIENCE):
        while one._seen is renewed:
            await asyncio.sleep(0.05)
    assert (keeping.done(), one.leading) == (False, True)
    keeping.cancel()
    await asyncio.wait({keeping})


async def test_a_leader_that_cannot_renew_until_the_deadline_stops(
    api: Api, namespace: str, control_plane: ControlPlane
) -> None:
    one = candidate(api, namespace, "one")
    await asyncio.wait_for(one.acquire(), PATIENCE)
    with away(control_plane), pytest.raises(LeadershipLost, match="was not renewed in time"):
        await asyncio.wait_for(one.keep(), PATIENCE)
    assert not one.leading


async def test_up_to_when_runs_were_counted_is_left_to_the_next_leader(api: Api, namespace: str) -> None:
    one, two = candidate(api, namespace, "one"), candidate(api, namespace, "two")
    await asyncio.wait_for(one.acquire(), PATIENCE)
    assert one.counted_until is None
    until = datetime(2026, 3, 28, 9, 0, 0, 123_456, tzinfo=timezone.utc)
    one.keep_counted(until)
    await one.release()
    await asyncio.wait_for(two.acquire(), PATIENCE)
    assert two.counted_until == until
    await two.release()
