"""``cloaca poll TRIGGER``: the deployed function with config, state and environment, and what would become of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from builders import WORKFLOW, archive, declared
from cloacina_operator.shell.ledgers import Ledgers

from cloaca.cli.submit import fire
from cloaca.resources import CloacinaPackage, Trigger, WorkflowRun
from cloaca.resources.run import TriggerReference
from cloaca.store import open_store

Cloaca = Callable[..., Any]

CODE = f"""{WORKFLOW}
@cloaca.trigger(name="inbox")
def inbox(config, state):
    said = {{"path": config["path"], "seen": state.get("seen"), "region": os.environ["REGION"]}}
    return [cloaca.TriggerResult.fire(said, key=key) for key in ("new", "active", "gone")]
"""


@pytest.fixture
def world(home: Path) -> None:
    """A package and its Trigger as a daemon leaves them: one key runs, one has run and was collected."""

    async def make() -> None:
        home.mkdir()
        store = await open_store(str(home / "cloacina.db"))
        data = archive(CODE, triggers=[declared("inbox", config={"path": "/manifest"})])
        digest = await store.put_archive(data)
        package = CloacinaPackage.model_validate(
            {
                "metadata": {"name": "demo"},
                "spec": {
                    "source": {"url": "file:///demo.cloacina"},
                    "podTemplate": {
                        "spec": {"containers": [{"name": "all", "env": [{"name": "REGION", "value": "eu"}]}]}
                    },
                },
                "status": {
                    "active": {"digest": digest, "version": "1.0.0", "since": datetime.now(timezone.utc)},
                },
            }
        )
        await store.create(package)
        effective = {
            "workflow": "demo",
            "pollInterval": "5s",
            "concurrencyPolicy": "Forbid",
            "timeout": "60s",
            "config": {"path": "/patched"},
            "digest": digest,
        }
        spec = {"packageRef": {"name": "demo"}, "name": "inbox"}
        status = {"effective": effective, "state": {"seen": 41}}
        made = await store.create(
            Trigger.model_validate({"metadata": {"name": "demo-inbox"}, "spec": spec, "status": status})
        )
        active = (await fire(store, made, {}, "active")).run
        await store.write_status(made.with_status(active=(active.name,)))
        by = TriggerReference(name=made.name, uid=made.metadata.uid)
        await Ledgers(store).enter(by, "default", ["gone"])
        await store.close()

    asyncio.run(make())


def test_it_says_what_would_become_of_each_fire_and_submits_nothing(world: None, cloaca: Cloaca, home: Path) -> None:
    said = cloaca("poll", "demo-inbox", "-o", "json")
    assert said.returncode == 0, said.stderr
    answer = json.loads(said.stdout)
    assert [fire["context"] for fire in answer["fires"]] == [{"path": "/patched", "seen": 41, "region": "eu"}] * 3
    new, active, gone = answer["fires"]
    assert new["verdict"] == f"blocked by active run {active['run']}: it waits for its turn"
    assert active["verdict"] == f"deduplicated by run {active['run']} (Pending)"
    assert gone["verdict"] == f"deduplicated by run {gone['run']}, which was collected"

    async def runs() -> int:
        store = await open_store(str(home / "cloacina.db"))
        try:
            return len(await store.list(WorkflowRun))
        finally:
            await store.close()

    assert asyncio.run(runs()) == 1
    text = cloaca("poll", "ctrig/demo-inbox")
    assert f"Run:        {gone['run']}, of workflow demo: deduplicated" in text.stdout
