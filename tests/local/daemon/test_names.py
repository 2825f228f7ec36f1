"""Two packages whose objects would have one name: both are said, nothing is polled in the other's place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from builders import archive, declared
from daemon_process import Daemon

from cloaca.packages.host import HOST_LIBRARIES
from cloaca.resources import Trigger
from cloaca.resources.conditions import find
from cloaca.resources.names import second_package_name

CODE = """
import cloaca
with cloaca.WorkflowBuilder("demo"):
    @cloaca.task()
    def only(context):
        pass
@cloaca.trigger(name=NAME, poll_interval="200ms", workflow="demo")
def look():
    return cloaca.TriggerResult.skip()
"""


def package(name: str, trigger: str) -> bytes:
    return archive(CODE.replace("NAME", repr(trigger)), name=name, triggers=[declared(trigger)])


async def test_a_trigger_name_that_another_package_has_is_said_until_it_is_free(daemon: Daemon) -> None:
    daemon.start()
    daemon.deploy(package("data", "ingest_inbox"), "data-1.0.0.cloacina")
    await daemon.package("data", Ready=("True", "Ready"))
    await daemon.trigger("data-ingest-inbox", lambda trigger: trigger.status.last_poll_time is not None)
    daemon.deploy(package("data-ingest", "inbox"), "data-ingest-1.0.0.cloacina")
    second = await daemon.package("data-ingest", Ready=("False", "TriggerNameTaken"))
    said = find(second.status.conditions, "Ready")
    assert said is not None
    assert "'ingest_inbox' of package 'data'" in said.message
    (daemon.home.packages / "data-1.0.0.cloacina").unlink()
    await daemon.package("data-ingest", Ready=("True", "Ready"))

    def polled(trigger: Trigger) -> bool:
        return trigger.spec.package_ref.name == "data-ingest" and trigger.status.last_poll_time is not None

    await daemon.trigger("data-ingest-inbox", polled)


async def test_a_second_package_of_an_object_name_takes_no_place_and_gets_it_when_it_is_free(daemon: Daemon) -> None:
    daemon.start()
    daemon.deploy(package("data_ingest", "one"), "a-1.0.0.cloacina")
    first = await daemon.package("data-ingest", Ready=("True", "Ready"))
    daemon.deploy(package("data-ingest", "two"), "b-9.0.0.cloacina")
    second = await daemon.package(second_package_name("data-ingest"), Ready=("False", "PackageNameTaken"))
    said = find(second.status.conditions, "Ready")
    assert said is not None
    assert "'data-ingest'" in said.message
    assert "'data_ingest'" in said.message
    now = await daemon.package("data-ingest", Ready=("True", "Ready"))
    assert now.status.active == first.status.active
    (daemon.home.packages / "a-1.0.0.cloacina").unlink()

    async def taken_over(store: Any) -> bool:
        packages = {package.name: package for package in await store.list(type(first))}
        active = packages["data-ingest"].status.active if set(packages) == {"data-ingest"} else None
        return active is not None and active.name == "data-ingest"

    await daemon.eventually("the second package under its own name", taken_over)


LOADED = """
import json, pathlib, sys
def loaded():
    return sorted({name.partition(".")[0] for name, module in sys.modules.items()
                   if "site-packages" in (getattr(module, "__file__", None) or "")})
def note(where):
    pathlib.Path(PLACE, where + ".json").write_text(json.dumps(loaded()))
note("import")
"""


async def test_every_library_that_processes_load_is_on_the_list(daemon: Daemon, tmp_path: Path) -> None:
    code = LOADED.replace("PLACE", repr(str(tmp_path))) + CODE.replace("NAME", "'look'")
    code = code.replace("        pass\n", "        note('run')\n")
    code = code.replace(
        "    return cloaca.TriggerResult.skip()", "    note('poll')\n    return cloaca.TriggerResult.fire({}, key='1')"
    )
    daemon.start()
    daemon.deploy(archive(code, triggers=[declared("look")]))
    await daemon.runs(lambda runs: any(run.status.phase.finished for run in runs))
    found = {path.stem: set(json.loads(path.read_text())) for path in tmp_path.glob("*.json")}
    assert set(found) == {"import", "poll", "run"}
    others = set().union(*found.values()) - set(HOST_LIBRARIES) - {"_distutils_hack", "coverage", "pytest_cov"}
    assert others == set()


async def test_a_package_for_another_python_is_refused_before_it_is_imported(daemon: Daemon) -> None:
    daemon.start()
    code = "raise SystemExit('imported')\n"
    daemon.deploy(archive(code, python={"requires_python": ">=4.0", "entry_module": "demo"}))
    package = await daemon.package(Ready=("False", "PythonUnsupported"), Agreed=("False", "PythonUnsupported"))
    said = find(package.status.conditions, "Ready")
    assert said is not None
    assert "'>=4.0'" in said.message
