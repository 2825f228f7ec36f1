"""One scenario from its start to rest: a store, an operator, a machine, and the faults that strike them."""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import logging
import random
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

from builders import archive
from cloacina_operator.core.turns import RunLimits
from cloacina_operator.shell.archives import Archives
from cloacina_operator.shell.index import Index
from cloacina_operator.shell.queue import Queue
from cloacina_operator.shell.reconcile import Reconciler
from faults.backends import BACKENDS, Backend
from faults.clock import STARTED, WallClock, governed
from faults.machine import RESTART, RUN, Machine
from faults.parsed import Parsed
from faults.processes import CURRENT, Loop, Opened, Process
from faults.record import Record, Said
from faults.store import KINDS, Fault, Faults, FaultyStore, Point

import cloaca
from cloaca.authoring.registry import Registry, collecting
from cloaca.resources import CloacinaPackage, ObjectMeta, Ref, RunPhase, Trigger, TriggerSpec, WorkflowRun
from cloaca.resources.package import PackageSource, PackageSpec, RunDefaults
from cloaca.resources.trigger import PackageReference

PATIENCE = 900.0  # seconds of the simulated clock
LOOKED_AFTER = 8  # of so many cases one shows whether somebody changed in place what others read
REST = 20.0  # seconds in which nothing must happen any more
PACKAGE = Ref(CloacinaPackage.KIND, "default", "demo")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What a package does, what people do to it, and when all of it is done."""

    name: str
    code: str
    tasks: tuple[str, ...] = ("first", "second")
    triggers: tuple[dict[str, Any], ...] = ()
    trigger: Mapping[str, Any] = field(default_factory=dict)  # what a person wants of it, beyond the manifest
    people: Callable[[World], Awaitable[None]] | None = None
    done: Callable[[World], bool]
    check: Callable[[World], list[str]] = lambda _: []
    gone: bool = False  # in the end there is no package


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way for a scenario to go."""

    scenario: str
    seed: int = 0
    together: bool = False  # operator and poller are one process, the daemon
    on: str = "memory"  # one of BACKENDS
    planned: tuple[tuple[Point, Fault], ...] = ()

    def __str__(self) -> str:
        """The line that repeats it."""
        at = "; ".join(f"{point}={fault.value}" for point, fault in self.planned)
        where = (" --daemon" if self.together else "") + ("" if self.on == "memory" else f" --on {self.on}")
        return f"python -m faults {self.scenario} --seed {self.seed}{where} --at {at!r}"


@dataclass(kw_only=True)
class Outcome:
    """How a scenario went."""

    case: Case
    broken: list[str] = field(default_factory=list)
    passed: list[Point] = field(default_factory=list)
    struck: list[tuple[Point, Fault]] = field(default_factory=list)
    seconds: float = 0.0  # of the simulated clock


def play(scenario: Scenario, case: Case) -> Outcome:
    """Run ``scenario``, which is the one of ``case``. Raises backends.Unavailable."""
    loop = Loop()
    backend = BACKENDS[case.on](loop)
    world = World(loop, backend, scenario, case)
    loop.set_exception_handler(lambda _, __: None)
    parsed = Parsed()
    logs = _Unexpected()
    logger = logging.getLogger("cloacina.reconcile")
    logger.addHandler(logs)
    try:
        with governed(world.clock, random.Random(case.seed + 1), parsed):
            try:
                loop.run_until_complete(world.live())
            except AssertionError as error:
                world.record.broken.append(str(error))
            world.end()
            loop.run_until_complete(_ended(loop))
        loop.run_until_complete(loop.outside(backend.remove()))
    finally:
        logger.removeHandler(logs)
        loop.close()
    broken = world.record.settle(gone=scenario.gone) + scenario.check(world) + logs.seen
    if crc32(str(case).encode()) % LOOKED_AFTER == 0:
        broken += parsed.changed()
    return Outcome(
        case=case,
        broken=broken,
        passed=world.faults.passed,
        struck=world.faults.struck,
        seconds=loop.clock - STARTED,
    )


async def _ended(loop: Loop) -> None:
    await loop.rest()
    left = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=60)
    await loop.shutdown_asyncgens()


class _Unexpected(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.seen.append(f"logged: {record.getMessage()} ({error!r})")


class World:
    """Everything of one scenario. ``W`` in the package's code."""

    def __init__(self, loop: Loop, backend: Backend, scenario: Scenario, case: Case) -> None:
        self.loop = loop
        self._backend = backend
        self.clock = WallClock(loop)
        self.record = Record()
        self.faults = Faults(dict(case.planned))
        self.registries: dict[str, Registry] = {}
        self.versions: dict[str, str] = {}
        self.calls = 0
        self.called_at: list[float] = []
        self.called_by: list[Process] = []  # the poller of each call
        self.runs_kept = 0  # in the store, without those that only repeated one
        self.over = False  # somebody says so
        self.inbox = ["a", "b", "c"]
        self._scenario = scenario
        self._together = case.together
        self._chance = random.Random(case.seed)
        self._judge = Opened(loop, backend, "judge")
        self._real = loop.run_until_complete(self._judge.store())
        loop.to_come = backend.to_come
        self._process: Process | None = None  # the operator, or the daemon
        self._queue: Queue | None = None
        self._index: Index | None = None
        self.machine = Machine(self, None)
        self._ended = False
        self._person = Process("person")
        self.person = self.store_of("person", self._person)

    def store_of(self, component: str, process: Process) -> FaultyStore:
        """The store as that process sees it."""
        if process.opened is None:
            process.opened = Opened(self.loop, self._backend, component)
            process.on_end(process.opened.close)
        return FaultyStore(
            process.opened,
            self._backend,
            component=component,
            process=process,
            faults=self.faults,
            record=self.record,
            chance=self._chance,
        )

    # --- life

    async def live(self) -> None:
        """From the deployment until nothing happens any more."""
        self._start_operator()
        if self._scenario.trigger:
            spec = TriggerSpec(package_ref=PackageReference(name="demo"), name="watch", **self._scenario.trigger)
            await self.person.create(Trigger(metadata=ObjectMeta(name="demo-watch"), spec=spec))
        await self.person.create(
            CloacinaPackage(
                metadata=ObjectMeta(name="demo"),
                spec=PackageSpec(source=PackageSource(url=self.pack("1.0.0")), runs=RunDefaults(backoff_limit=10)),
            )
        )
        people = None if self._scenario.people is None else asyncio.ensure_future(self._scenario.people(self))
        deadline = self.loop.time() + PATIENCE
        while not await self._settled() or (people is not None and not people.done()):
            if self.record.broken:
                return  # what comes of it is no news
            assert self.loop.time() < deadline, f"not done after {PATIENCE:g} s: {await self._state()}"
            await asyncio.sleep(1.0)
        if people is not None:
            people.result()
        self.faults.planned = {}  # whatever strikes now is no part of the rest
        before, claims = len(self.record.writes), self.record.claims
        await asyncio.sleep(REST)
        written: dict[Ref, int] = {}
        for _, ref in self.record.writes[before:]:
            written[ref] = written.get(ref, 0) + 1
        polled = 1 + min(self.record.claims - claims, 1)  # a poller that has just started claims it, and records a poll
        allowed = {ref: polled for ref in written if ref.kind == Trigger.KIND}
        restless = {str(ref): count for ref, count in written.items() if count > allowed.get(ref, 0)}
        assert not restless, f"no rest: in {REST:g} s were written {restless}"
        assert await self._settled(), f"it was done, and is no more: {await self._state()}"

    async def _settled(self) -> bool:
        await self._collect_garbage()
        if self._process is None or not self._process.alive or self.loop.time() - self._started < 5.0:
            return False  # an operator that has just started looks at everything first
        if self.record.stalled:
            return False
        runs = await self._real.list(WorkflowRun)
        triggers = await self._real.list(Trigger)
        self.runs_kept = sum(run.status.phase is not RunPhase.DEDUPLICATED for run in runs)
        if self._scenario.gone:
            return self._scenario.done(self) and not runs and not triggers and not self.machine.alive()
        return (
            all(run.status.phase.finished for run in runs)
            and all(trigger.status.pending is None and not trigger.status.active for trigger in triggers)
            and self._scenario.done(self)
        )

    async def _collect_garbage(self) -> None:
        """On a cluster, pollers and runs are owned by the objects that they are for, and go with them."""
        if self._together:
            return
        for ref in self.machine.objects():
            if await self._real.get(KINDS[ref.kind], ref.name, ref.namespace) is None:
                self.machine.collect(ref)

    async def _state(self) -> str:
        runs = [
            f"{run.name} {run.status.phase.value} {run.status.message}" for run in await self._real.list(WorkflowRun)
        ]
        triggers = [
            f"{it.name} sequence {it.status.sequence} pending {it.status.pending} active {it.status.active} "
            f"state {it.status.state} {it.status.last_error}"
            for it in await self._real.list(Trigger)
        ]
        return f"calls {self.calls}, runs {runs}, triggers {triggers}, alive {self.machine.alive()}"

    def end(self) -> None:
        """Everything stops."""
        self._ended = True
        if self._process is not None:
            self._process.kill()
        for polling in self.machine._polling.values():
            polling.process.kill()
        for running in self.machine._running.values():
            running.process.kill()
        for poller in self.machine.lost:
            poller.kill()
        self._person.kill()
        self._judge.close()

    def _start_operator(self) -> None:
        if self._ended:
            return
        process = self._process = Process("operator")
        self._started = self.loop.time()
        if self._together:
            self.machine = Machine(self, process)
        store = self.store_of("operator", process)
        queue = self._queue = Queue()
        archives = Archives(
            store=store,
            executor=self.machine,
            changed=self.changed,
            kept_in=None,
            store_failed=lambda: None,
        )
        index = self._index = Index(store)
        for run in self.machine.known_runs():
            index.may_have_process(run)
        reconciler = Reconciler(
            store=store,
            executor=self.machine,
            archives=archives,
            index=index,
            queue=queue,
            now=self.clock.now,
            limits=RunLimits(total=8),
            store_failed=lambda: None,
        )
        process.on_end(lambda: self.loop.call_later(RESTART, self._start_operator))
        process.spawn(reconciler.run())

    def changed(self, ref: Ref) -> None:
        """Have the operator look, if there is one."""
        if self._queue is None or self._process is None or not self._process.alive:
            return
        outside = CURRENT.set(self._process)
        try:
            if ref.kind == WorkflowRun.KIND and self._index is not None:
                self._index.may_have_process(ref)
            self._queue.add(ref)
        finally:
            CURRENT.reset(outside)

    # --- packages

    def pack(self, version: str) -> str:
        """The URL of the scenario's archive in that version."""
        url, digest, text = _packed(self._scenario.code, version, self._scenario.tasks, repr(self._scenario.triggers))
        with collecting() as registry:
            exec(text, {"W": self, "__name__": "demo", "VERSION": version})  # our own code, above
        self.registries[digest], self.versions[digest] = registry, version
        return url

    # --- what the package's code says

    def call(self) -> int:
        """A trigger function is called, the n-th time."""
        poller = self._poller()
        self.record.called(poller)
        self.calls += 1
        self.called_at.append(self.loop.time())
        self.called_by.append(poller)
        return self.calls

    def fire(self, fire: str, version: str, key: str | None = None) -> Any:
        """The result that fires it."""
        context = {"fire": fire, "version": version, "payload": f"payload of {fire}"}
        self.record.said.append(Said(fire, key, context, self._poller()))
        return cloaca.TriggerResult.fire(cloaca.Context(context), key=key)

    def after(self, fire: str) -> None:
        """The code after its ``yield`` runs."""
        process = CURRENT.get()
        assert process is not None
        process.check()
        self.record.after_yield(fire)

    async def task(self, name: str, context: Any, seconds: float = 0.3) -> None:
        """A task of a run, from its start to its end."""
        process = CURRENT.get()
        assert process is not None
        process.check()
        uid, version = RUN.get()
        self.record.task_starts(uid, name, dict(context.to_dict()), version)
        await asyncio.sleep(seconds)
        process.check()
        context.set(name, "done")

    @staticmethod
    def _poller() -> Process:
        process = CURRENT.get()
        assert process is not None
        process.check()
        return process if process.parent is None else process.parent


@cache
def _packed(code: str, version: str, tasks: tuple[str, ...], triggers: str) -> tuple[str, str, str]:
    declared = [
        {"id": task, "function": f"demo:{task}", "dependencies": [tasks[n - 1]] if n else []}
        for n, task in enumerate(tasks)
    ]
    text = code + f"\n# {version}\n"
    data = archive(text, version=version, tasks=declared, triggers=list(eval(triggers)))  # a repr of ours
    digest = hashlib.sha256(data).hexdigest()
    path = _folder() / f"{digest}.cloacina"
    path.write_bytes(data)
    return path.as_uri(), f"sha256:{digest}", text


@cache
def _folder() -> Path:
    """Of this process; gone with it."""
    made = tempfile.TemporaryDirectory(prefix="faults-")
    atexit.register(made.cleanup)
    return Path(made.name)
