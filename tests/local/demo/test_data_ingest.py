"""The example package, function by function, as an author would test it: no daemon, no archive."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import cloaca
from cloaca.authoring.registry import collecting

duckdb = pytest.importorskip("duckdb")

EXAMPLE = Path(__file__).parents[3] / "examples" / "data-ingest"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module, imported for an inbox and a warehouse of this test alone."""
    (tmp_path / "inbox").mkdir()
    monkeypatch.setenv("INBOX_PATH", str(tmp_path / "inbox"))
    monkeypatch.setenv("WAREHOUSE_PATH", str(tmp_path / "warehouse.duckdb"))
    monkeypatch.syspath_prepend(str(EXAMPLE))
    with collecting():
        yield importlib.import_module("data_ingest")
    del sys.modules["data_ingest"]


def write_flights(package: ModuleType, path: Path, *, rows: int, **columns: str) -> Path:
    """A file with the columns of flights, or others where ``columns`` (name=type) says so."""
    kinds = {**package.COLUMNS, **columns}
    values = {"BIGINT": "1", "VARCHAR": "'x'", "TIMESTAMP WITH TIME ZONE": "now()", "DOUBLE": "1.5"}
    day = {"year": "2013", "month": "1", "day": "1 + i % 31"}
    shown = ", ".join(f"({day.get(name, values[kind])})::{kind} AS {name}" for name, kind in kinds.items())
    with duckdb.connect() as memory:
        memory.execute(f"COPY (SELECT {shown} FROM range({rows}) numbers(i)) TO '{path}' (FORMAT parquet)")
    return path


def fired(path: Path) -> dict[str, str]:
    """The context of a fire for ``path``, which its trigger has not moved yet."""
    return {"filename": path.name, "inbox_path": str(path), "path": str(path.parent.parent / "accepted" / path.name)}


def test_importing_the_package_does_not_import_duckdb(package: ModuleType) -> None:
    assert not hasattr(package, "duckdb")


def test_it_fires_oldest_first_and_moves_a_file_only_after_its_fire_was_taken(package: ModuleType) -> None:
    for name in ("b.parquet", "a.parquet", ".c.parquet", ".d.parquet.tmp"):
        (package.INBOX / name).write_bytes(name.encode())
    polled = package.inbox_watcher()
    first = next(polled)
    assert first.context["filename"] == "b.parquet"
    assert (package.INBOX / "b.parquet").exists()
    second = next(polled)
    assert second.context["filename"] == "a.parquet"
    assert not (package.INBOX / "b.parquet").exists()
    assert Path(first.context["path"]).read_bytes() == b"b.parquet"
    assert list(polled) == []
    assert sorted(path.name for path in package.INBOX.iterdir()) == [".c.parquet", ".d.parquet.tmp"]


def test_a_file_has_one_key_for_each_content(package: ModuleType) -> None:
    path = package.INBOX / "a.parquet"
    keys = []
    for content in (b"first", b"first", b"corrected"):
        path.write_bytes(content)
        keys += [result.key for result in package.inbox_watcher()]
    assert keys[0] == keys[1]
    assert keys[2] != keys[1]
    assert all(key.startswith("a.parquet ") for key in keys)


def test_a_file_is_loaded_wherever_it_is_by_then(package: ModuleType, tmp_path: Path) -> None:
    path = write_flights(package, package.INBOX / "a.parquet", rows=40)
    context = fired(path)
    with cloaca.DefaultRunner(":memory:") as runner:
        before = runner.execute("data_ingest", context)
        Path(context["path"]).parent.mkdir()
        path.rename(context["path"])
        after = runner.execute("data_ingest", context)
    assert (before.error_message, after.error_message) == (None, None)
    assert after.final_context["rows"] == 40
    assert after.final_context["days"] == ["2013-01-01", "2013-01-31"]
    with duckdb.connect(tmp_path / "warehouse.duckdb", read_only=True) as warehouse:
        loaded = warehouse.execute("SELECT source_file, count(*) FROM flights GROUP BY ALL").fetchall()
    assert loaded == [("a.parquet", 40)]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        pytest.param(0, {}, "a.parquet has no rows", id="no rows"),
        pytest.param(1, {"gate": "BIGINT"}, "gate is not expected", id="a column too many"),
        pytest.param(1, {"distance": "DOUBLE"}, "distance is DOUBLE, not BIGINT", id="another type"),
    ],
)
def test_a_file_that_is_not_one_of_flights_is_refused_and_nothing_is_loaded(
    package: ModuleType, rows: int, columns: dict[str, str], message: str
) -> None:
    path = write_flights(package, package.INBOX / "a.parquet", rows=rows, **columns)
    with cloaca.DefaultRunner(":memory:") as runner:
        result = runner.execute("data_ingest", fired(path))
    assert result.status == "Failed"
    assert message in (result.error_message or "")
    assert not package.WAREHOUSE.exists()


def test_a_file_that_is_gone_fails_and_says_where_it_was_looked_for(package: ModuleType) -> None:
    context = fired(package.INBOX / "a.parquet")
    with cloaca.DefaultRunner(":memory:") as runner:
        result = runner.execute("data_ingest", context)
    assert result.status == "Failed"
    assert f"neither at {context['path']} nor at {context['inbox_path']}" in (result.error_message or "")
