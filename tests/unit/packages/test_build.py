"""Packing: the same bytes from the same files, and everything that keeps a folder from being packed."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from cloaca.errors import AgreementError, ArchiveError, BuildError, ImportCrashed, LoadError, ManifestError
from cloaca.packages.archive import read_archive
from cloaca.packages.build import build_package

PYPROJECT = """
[project]
name = "data-ingest"
version = "1.0.0"
requires-python = ">=3.10"

[tool.cloaca]
entry_module = "data_ingest"
"""
CODE = """
import cloaca

with cloaca.WorkflowBuilder("data_ingest"):
    @cloaca.task(id="validate", retry_attempts=0)
    def validate(context):
        "Refuse what is empty."

    @cloaca.task(id="load", dependencies=["validate"])
    def load(context):
        pass

@cloaca.trigger(name="watch", poll_interval="5s")
def watch():
    return cloaca.TriggerResult.skip()
"""
SECOND = """
with cloaca.WorkflowBuilder("other"):
    @cloaca.task(id="only")
    def only(context):
        pass
"""


def folder(root: Path, code: str = CODE, pyproject: str = PYPROJECT, **files: str) -> Path:
    """A folder with a package; ``files`` are more modules of it, by name."""
    (root / "data_ingest").mkdir(parents=True)
    (root / "pyproject.toml").write_text(pyproject)
    for name, text in {"__init__": code, **files}.items():
        (root / "data_ingest" / f"{name}.py").write_text(text)
    return root


def test_the_same_files_give_the_same_bytes_whatever_surrounds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_package(folder(tmp_path / "a"), tmp_path / "one")
    other = folder(tmp_path / "b")
    (other / "data_ingest" / "__pycache__").mkdir()
    (other / "data_ingest" / "__pycache__" / "x.pyc").write_bytes(b"x")
    (other / "data_ingest" / ".hidden").write_text("x")
    (other / "notes.txt").write_text("not packed")
    os.utime(other / "data_ingest" / "__init__.py", (0, 0))
    (other / "data_ingest" / "__init__.py").chmod(0o600)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    second = build_package(other, tmp_path / "two.cloacina")
    assert first.path == tmp_path / "one" / "data-ingest-1.0.0.cloacina"
    assert second.path == tmp_path / "two.cloacina"
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.digest == second.digest
    with tarfile.open(first.path) as tar:
        members = [(m.name, m.mode, m.uid, m.gid, m.uname, m.mtime) for m in tar]
    assert members == [(n, 0o644, 0, 0, "", 315_532_800) for n in ("manifest.json", "data_ingest/__init__.py")]


def test_source_date_epoch_is_the_time_of_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    built = build_package(folder(tmp_path / "a"), tmp_path)
    assert read_archive(built.path.read_bytes()).manifest.created_at == "2001-09-09T01:46:40Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    with pytest.raises(BuildError, match="SOURCE_DATE_EPOCH is 'soon', but must be a number of seconds"):
        build_package(tmp_path / "a", tmp_path)


def test_the_manifest_says_what_the_decorators_and_the_tables_say(tmp_path: Path) -> None:
    table = '[[tool.cloaca.triggers]]\nname = "watch"\npoll_interval = "1m"\nconfig = { path = "/data" }\n'
    built = build_package(folder(tmp_path / "a", pyproject=PYPROJECT + table), tmp_path)
    manifest = read_archive(built.path.read_bytes()).manifest
    assert [task.model_dump(exclude_none=True) for task in manifest.tasks] == [
        {
            "id": "validate",
            "function": "data_ingest:validate",
            "dependencies": (),
            "description": "Refuse what is empty.",
            "retries": 0,
        },
        {"id": "load", "function": "data_ingest:load", "dependencies": ("validate",), "retries": 3},
    ]
    [trigger] = manifest.triggers
    assert (trigger.workflow, trigger.poll_interval, trigger.config) == ("data_ingest", "1m", {"path": "/data"})
    assert built.warnings == (
        "trigger `watch`: poll_interval is '1m' in the manifest and '5s' in the code; the manifest wins",
    )


def test_a_package_below_src_and_one_of_a_single_module_are_found(tmp_path: Path) -> None:
    layout = folder(tmp_path / "a")
    (layout / "src").mkdir()
    (layout / "data_ingest").rename(layout / "src" / "data_ingest")
    single = tmp_path / "b"
    single.mkdir()
    (single / "pyproject.toml").write_text(PYPROJECT)
    (single / "data_ingest.py").write_text(CODE)
    packed = [read_archive(build_package(root, tmp_path).path.read_bytes()).files for root in (layout, single)]
    assert packed == [("data_ingest/__init__.py", "manifest.json"), ("data_ingest.py", "manifest.json")]


def test_vendor_is_packed_and_importable_and_dependencies_that_are_not_are_told(tmp_path: Path) -> None:
    pyproject = PYPROJECT.replace("[tool.cloaca]", 'dependencies = ["requests>=2"]\n\n[tool.cloaca]')
    root = folder(tmp_path / "a", code=f"{CODE}\nimport data_ingest.more\n", pyproject=pyproject, more="x = 1")
    [warning] = build_package(root, tmp_path).warnings
    assert warning.startswith("pyproject.toml: dependencies are not packed (requests>=2): put them into vendor/")
    (root / "vendor").mkdir()
    (root / "vendor" / "borrowed.py").write_text("y = 2")
    (root / "data_ingest" / "more.py").write_text("import borrowed")
    built = build_package(root, tmp_path)
    assert built.warnings == ()
    assert "vendor/borrowed.py" in read_archive(built.path.read_bytes()).files


@pytest.mark.parametrize(
    ("pyproject", "sentences"),
    [
        pytest.param(
            "",
            (
                '[project] has no name: add a line such as name = "my-package"',
                '[project] has no version: add a line such as version = "1.0.0"',
                '[tool.cloaca] has no entry_module: add a line such as entry_module = "my_package"',
            ),
            id="empty: all at once",
        ),
        pytest.param("[project", ("is not TOML",), id="not TOML"),
        pytest.param(PYPROJECT.replace('"1.0.0"', "1"), ("version is 1, but must be a text",), id="wrong type"),
        pytest.param(
            f'{PYPROJECT}entry_modul = "x"\n',
            ("unknown field 'entry_modul': did you mean 'entry_module'?",),
            id="field",
        ),
        pytest.param(
            f'{PYPROJECT}[[tool.cloaca.triggers]]\nname = "watsch"\n',
            ("a table for 'watsch', but the code has no such trigger: did you mean 'watch'?",),
            id="table without trigger",
        ),
        pytest.param(
            f'{PYPROJECT}[[tool.cloaca.triggers]]\nname = "watch"\nconfig = {{ since = 2026-01-01 }}\n',
            ("config cannot be JSON",),
            id="date",
        ),
        pytest.param(
            PYPROJECT.replace(">=3.10", ">=4"), ("requires-python is '>=4', but this is Python",), id="python"
        ),
        pytest.param(
            PYPROJECT.replace('"data_ingest"', '"data_injest"'),
            ("has neither data_injest/__init__.py nor",),
            id="module",
        ),
    ],
)
def test_a_project_that_cannot_be_packed_says_everything_that_is_wrong(
    pyproject: str, sentences: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(BuildError) as raised:
        build_package(folder(tmp_path / "a", pyproject=pyproject), tmp_path)
    assert [sentence for sentence in sentences if sentence not in str(raised.value)] == []
    assert list(tmp_path.glob("*.cloacina")) == []


@pytest.mark.parametrize(
    ("code", "error", "sentence"),
    [
        pytest.param(
            CODE + SECOND,
            BuildError,
            "trigger 'watch' (data_ingest/__init__.py:13) does not say which workflow it fires (the package has: "
            'data_ingest, other): add the line workflow = "data_ingest" to a table',
            id="workflow untold",
        ),
        pytest.param(
            CODE.replace('"watch",', '"watch", workflow="nope",'), AgreementError, "workflow `nope`", id="unknown"
        ),
        pytest.param("import cloaca", ManifestError, "NoTasks", id="no tasks"),
        pytest.param("import os\nos._exit(3)", ImportCrashed, "exit code 3", id="exit"),
        pytest.param("import nothing_of_that_name", LoadError, "nothing_of_that_name", id="import"),
    ],
)
def test_code_that_cannot_be_packed_says_why(code: str, error: type[Exception], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(error) as raised:
        build_package(folder(tmp_path / "a", code=code), tmp_path)
    assert sentence in str(raised.value)
    assert list(tmp_path.glob("*.cloacina")) == []


def test_links_that_leave_and_names_of_the_standard_library_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "a")
    (root / "data_ingest" / "inside.py").symlink_to(root / "data_ingest" / "__init__.py")
    (root / "data_ingest" / "away.py").symlink_to("/etc/hostname")
    with pytest.raises(BuildError, match=r"away\.py: is a link to a folder or out of"):
        build_package(root, tmp_path)
    (root / "data_ingest" / "away.py").unlink()
    (root / "vendor").mkdir()
    (root / "vendor" / "json.py").write_text("")
    with pytest.raises(ArchiveError, match=r"vendor/json\.py: a module named 'json' would shadow"):
        build_package(root, tmp_path)
