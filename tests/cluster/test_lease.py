"""Two operators and one Lease on a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from cloacina_operator.core.leadership import DURATION, RENEW
from cloacina_operator.hosts.lease import LeadershipLost, Lease
from cluster.control_plane import ControlPlane

from cloaca.store.kubernetes.api import Api
from cloaca.store.kubernetes.config import find_server, parse_url

PATIENCE = 30.0


@pytest.fixture
async def api(control_plane: ControlPlane) -> AsyncIterator[Api]:
    made = Api(find_server(parse_url(f"kubernetes://{control_plane.kubeconfig}"), {}))
    yield made
    await made.close()


def candidate(api: Api, namespace: str, me: str) -> Lease:
    return Lease(api, namespace=namespace, name="operator", me=me)


async def test_one_of_two_leads_and_the_other_follows_at_once_when_it_lets_go(api: Api, namespace: str) -> None:
    one, two = candidate(api, namespace, "one"), candidate(api, namespace, "two")
    await asyncio.wait_for(one.acquire(), PATIENCE)
    waiting = asyncio.ensure_future(two.acquire())
    keeping = asyncio.ensure_future(one.keep())
    done, _ = await asyncio.wait({waiting}, timeout=RENEW * 2)
    assert not done, "nobody leads beside a leader that renews"

    keeping.cancel()
    await asyncio.wait({keeping})
    await one.release()

    await asyncio.wait_for(waiting, DURATION - RENEW)
    assert two.leading


async def test_a_leader_that_dies_is_replaced_within_15_seconds(api: Api, namespace: str) -> None:
    one, two = candidate(api, namespace, "one"), candidate(api, namespace, "two")
    await asyncio.wait_for(one.acquire(), PATIENCE)

    await asyncio.wait_for(two.acquire(), 15.0)

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
