"""The package that is under way in a storm: twenty triggers of every form, whose code says in a file what it does."""

from __future__ import annotations

from dataclasses import dataclass

from builders import archive, declared

TASKS = ("first", "second", "third")

# A line is one write to a file opened for appending, so lines of many processes stand in the order of their writing.
_HEAD = """
import asyncio, json, os, random, time
from pathlib import Path
import cloaca

FOLDER = Path(os.environ["STORM_FOLDER"])
STARTED = float(os.environ["STORM_STARTED"])
PERIOD = 4.0  # seconds between two things that a trigger finds

def say(what, **more):
    born = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]
    line = {"what": what, "process": f"{os.getpid()} born {born}", "time": time.time(), **more}
    record = os.open(FOLDER / "record", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(record, json.dumps(line).encode() + b"\\n")
    os.close(record)

def over():
    return (FOLDER / "over").exists()

def found(trigger):
    \"\"\"The call is told; what there is to find by now: a number each period, and none is new once it is over.\"\"\"
    say("call", trigger=trigger)
    until = (FOLDER / "over").stat().st_mtime if over() else time.time()
    return range(int((until - STARTED) / PERIOD))

def waiting(trigger):
    \"\"\"What has no run yet, and what was found last: as a function does that looks into a folder.\"\"\"
    numbers = found(trigger)
    return [number for number in numbers if not taken(trigger, number) or number in numbers[-3:]][:8]

def fire(trigger, name, key=False):
    context = {"trigger": trigger, "fire": f"{trigger}/{name}", "payload": random.random()}
    say("fire", keyed=key, **context)
    return cloaca.TriggerResult.fire(context, key=f"{trigger}/{name}" if key else None)

def taken(trigger, number):
    return (FOLDER / "taken" / f"{trigger}-{number}").exists()

def after(trigger, number):
    say("after", trigger=trigger, fire=f"{trigger}/{number}")
    (FOLDER / "taken" / f"{trigger}-{number}").touch()

def task(name, context):
    log = os.readlink("/proc/self/fd/1")  # each run prints into a file of its own
    run = {"run": Path(log).stem, "task": name, **{key: context[key] for key in ("trigger", "fire", "payload")}}
    say("start", **run)
    (FOLDER / "taken" / context["fire"].replace("/", "-")).touch()
    time.sleep(0.15)
    say("end", **run)

with cloaca.WorkflowBuilder("demo") as builder:
    @cloaca.task(id="first", retry_attempts=0)
    def first(context):
        task("first", context)

    @cloaca.task(id="second", dependencies=["first"], retry_attempts=0)
    def second(context):
        task("second", context)

    @cloaca.task(id="third", dependencies=["second"], retry_attempts=0)
    def third(context):
        task("third", context)
"""


@dataclass(frozen=True, kw_only=True)
class _Form:
    """One way to write a trigger. In its code ``NAME`` is the function's name, ``TRIGGER`` the trigger's, quoted."""

    name: str
    code: str
    concurrent: bool = True
    forgets: bool = False  # what it said once it does not say again: it has neither key nor state nor yield


_FORMS = (
    _Form(
        name="keyed",
        code="def NAME():\n    return [fire(TRIGGER, number, key=True) for number in waiting(TRIGGER)]",
    ),
    _Form(
        name="inbox",
        code="""async def NAME():
    left = [number for number in found(TRIGGER) if not taken(TRIGGER, number)]
    return fire(TRIGGER, left[0], key=True) if left else cloaca.TriggerResult.skip()""",
    ),
    _Form(
        name="unkeyed",
        forgets=True,
        code="""def NAME():
    found(TRIGGER)
    due = random.random() < 1 / PERIOD and not over()
    return fire(TRIGGER, time.time_ns()) if due else cloaca.TriggerResult.skip()""",
    ),
    _Form(
        name="unkeyed_list",
        forgets=True,
        code="""async def NAME():
    found(TRIGGER)
    due = random.random() < 0.5 / PERIOD and not over()
    return [fire(TRIGGER, time.time_ns()) for _ in range(2)] if due else []""",
    ),
    _Form(
        name="state",
        code="""def NAME(state):
    number = state.get("n", 0)
    if number >= len(found(TRIGGER)):
        return cloaca.TriggerResult.skip()
    state.set("n", number + 1)
    return fire(TRIGGER, number)""",
    ),
    _Form(
        name="generator",
        code="""def NAME():
    for number in found(TRIGGER):
        if not taken(TRIGGER, number):
            yield fire(TRIGGER, number, key=True)
            after(TRIGGER, number)""",
    ),
    _Form(
        name="generator_state",
        code="""def NAME(state):
    numbers = found(TRIGGER)
    while (number := state.get("n", 0)) < len(numbers):
        state.set("n", number + 1)
        yield fire(TRIGGER, number)
        after(TRIGGER, number)""",
    ),
    _Form(
        name="async_generator",
        code="""async def NAME():
    for number in found(TRIGGER):
        if not taken(TRIGGER, number):
            yield fire(TRIGGER, number, key=True)
            after(TRIGGER, number)""",
    ),
    _Form(
        name="alone",
        code="def NAME():\n    return [fire(TRIGGER, number, key=True) for number in waiting(TRIGGER)]",
        concurrent=False,
    ),
    _Form(
        name="alone_state",
        code="""async def NAME(state):
    number = state.get("n", 0)
    if number + 1 >= len(found(TRIGGER)):
        return cloaca.TriggerResult.skip()
    state.set("n", number + 2)
    return [fire(TRIGGER, number), fire(TRIGGER, number + 1)]""",
        concurrent=False,
    ),
)
TRIGGERS = tuple((f"{form.name}_{copy}", form) for copy in (1, 2) for form in _FORMS)
ALONE = frozenset(name for name, form in TRIGGERS if not form.concurrent)
"""The triggers of which no two runs may overlap."""
FORGETFUL = frozenset(name for name, form in TRIGGERS if form.forgets)
"""The triggers whose fires may die with the process that made them."""


def package() -> bytes:
    """The archive."""
    code = _HEAD
    for name, form in TRIGGERS:
        code += f'\n@cloaca.trigger(name="{name}", poll_interval="1s", allow_concurrent={form.concurrent})\n'
        code += form.code.replace("NAME", name).replace("TRIGGER", repr(name)) + "\n"
    tasks = [
        {"id": task, "function": f"demo:{task}", "dependencies": list(TASKS[:number][-1:])}
        for number, task in enumerate(TASKS)
    ]
    triggers = [declared(name, poll_interval="1s", allow_concurrent=form.concurrent) for name, form in TRIGGERS]
    return archive(code, tasks=tasks, triggers=triggers)
