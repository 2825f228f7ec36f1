"""Up to when runs that ended were counted: what one process leaves to the next one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cloacina_operator.hosts.counted import CountedFile, CountedRuns

from cloaca.resources import ObjectMeta, RunPhase, WorkflowRun
from cloaca.resources.run import RunSpec, RunStatus

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)


def ended(at: datetime | None) -> WorkflowRun:
    status = RunStatus(phase=RunPhase.COMPLETED, finished_at=at)
    return WorkflowRun(metadata=ObjectMeta(name="demo-1"), spec=RunSpec(workflow="demo"), status=status)


def counted(**options: Any) -> CountedRuns:
    return CountedRuns(lambda run: None, now=lambda: NOW, **options)


@pytest.mark.parametrize(
    ("ends", "until"),
    [
        pytest.param([], NOW - timedelta(hours=1), id="nothing ended"),
        pytest.param([NOW - timedelta(minutes=1), NOW - timedelta(minutes=5)], NOW - timedelta(minutes=1), id="latest"),
        pytest.param([NOW + timedelta(days=9)], NOW, id="a clock that is ahead"),
        pytest.param([None], NOW - timedelta(hours=1), id="no time of its end"),
    ],
)
def test_the_line_is_the_latest_end_that_was_counted(ends: list[datetime | None], until: datetime) -> None:
    it = counted(until=NOW - timedelta(hours=1))
    for at in ends:
        it(ended(at))
    assert it.until == until


def test_the_next_process_reads_what_the_one_before_wrote_last(tmp_path: Path) -> None:
    path = tmp_path / "counted"
    file = CountedFile(path)
    assert file.read() is None
    it = counted(until=None, keep=file.write)
    assert CountedFile(path).read() == NOW  # its start: what ended before is not counted, also if it dies at once
    it.until = NOW - timedelta(days=1)
    it(ended(NOW - timedelta(microseconds=5)))
    assert CountedFile(path).read() == NOW - timedelta(microseconds=5)
    file.close()


@pytest.mark.parametrize(
    "content", ["", "2026-03-28T09:00:00", "nonsense", "\xff"], ids=["empty", "naive", "text", "binary"]
)
def test_a_file_that_cannot_be_read_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "counted").write_text(content, encoding="latin-1")
    assert CountedFile(tmp_path / "counted").read() is None


def test_a_file_that_cannot_be_written_is_said_once_and_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = CountedFile(tmp_path / "missing" / "counted")
    file.write(NOW)
    file.write(NOW)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/missing/counted: No such file or directory: after a restart runs may be counted twice"
    ]
