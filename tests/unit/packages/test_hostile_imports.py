"""A package whose import raises what cannot be printed is refused with what it was."""

from __future__ import annotations

from pathlib import Path

import hostile
import pytest

from cloaca.errors import LoadError
from cloaca.packages.inspection import inspect_package
from cloaca.processes.launch import Nursery

SOURCE = Path(hostile.__file__).read_text(encoding="utf-8")


def package(folder: Path, code: str, module: str = "demo") -> Path:
    (folder / module).mkdir()
    (folder / module / "__init__.py").write_text(f"{SOURCE}\nimport cloaca\n{code}\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise exception('str raises')", "importing 'demo' failed: StrRaises: its __str__ raised AttributeError"),
        ("raise exception('metaclass')", "importing 'demo' failed: Nameless"),
        ("raise exception('no traceback')", "importing 'demo' failed: Misbehaving: text"),
        ("raise exception('its own cause')", "importing 'demo' failed: ValueError: round"),
        ("raise exception('lone surrogates')", "importing 'demo' failed: OSError: no such file: caf\\udce9.csv"),
        ("raise KeyboardInterrupt", "importing 'demo' failed: KeyboardInterrupt"),
        ("raise exception('SyntaxError')", "importing 'demo' failed: SyntaxError: odd (f\\udce9.py)"),
        ("raise ModuleNotFoundError('odd', name=NamelessValue())", "importing 'demo' failed: ModuleNotFoundError: odd"),
        ("raise SystemExit(NamelessValue())", "importing 'demo' called sys.exit(<NamelessValue object>)"),
    ],
)
def test_an_import_that_raises_anything_says_what(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(LoadError) as refused:
        inspect_package(package(tmp_path, code), "demo")

    assert str(refused.value).startswith(message)
    assert type(refused.value) is LoadError
    assert 'File "demo/__init__.py"' in refused.value.traceback_text
    assert code in refused.value.traceback_text
    refused.value.traceback_text.encode()


CALLABLE = """
class Odd:
    def __call__(self, context): ...
    def __getattr__(self, name):
        if name == "__wrapped__": raise StrRaises
        raise AttributeError(name)
with cloaca.WorkflowBuilder("w"):
    cloaca.task(id="odd")(Odd())
"""


def test_a_callable_that_refuses_to_be_looked_at_is_refused_with_what_it_raised(tmp_path: Path) -> None:
    with pytest.raises(LoadError) as refused:
        inspect_package(package(tmp_path, CALLABLE), "demo")

    said = "importing 'demo' failed: StrRaises: its __str__ raised AttributeError (demo/__init__.py:"
    assert str(refused.value).startswith(said)


DESCRIBED = """
print("caf\\udce9.csv")
with cloaca.WorkflowBuilder("w") as builder:
    builder.description("caf\\udce9.csv \\x1b[31m")
    @cloaca.task(id="odd")
    def odd(context):
        "caf\\udce9.csv"
"""


def test_descriptions_and_prints_are_plain(tmp_path: Path) -> None:
    inventory = inspect_package(package(tmp_path, DESCRIBED), "demo")

    (workflow,) = inventory.workflows
    assert workflow.description == "caf\\udce9.csv \\x1b[31m"
    assert workflow.tasks[0].description == "caf\\udce9.csv"


async def test_a_refusal_without_a_traceback_comes_through_the_processes_of_the_daemon(tmp_path: Path) -> None:
    nursery = await Nursery.start()
    zygote = nursery.package(root=tmp_path, entry_module="yaml", env={}, log=tmp_path / "log")
    try:
        with pytest.raises(LoadError) as refused:
            await zygote.inventory(60)
    finally:
        await zygote.close()
        await nursery.close()

    assert type(refused.value) is LoadError
    assert "'yaml'" in str(refused.value)
    assert refused.value.traceback_text == ""
