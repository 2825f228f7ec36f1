"""Take Parquet files of flights from an inbox into a DuckDB warehouse: each file once, and no two at a time.

DuckDB is imported inside the tasks. This module is imported by every process of the package, the one that polls
included, and stays there; DuckDB belongs only into the process of a run, which ends with the run.
"""

import hashlib
import os
from datetime import datetime, timezone
from pathlib import Path

import cloaca

INBOX = Path(os.environ.get("INBOX_PATH", "/data/inbox"))
ACCEPTED = INBOX.parent / "accepted"
WAREHOUSE = Path(os.environ.get("WAREHOUSE_PATH", "/data/warehouse.duckdb"))

COLUMNS = {
    "year": "BIGINT", "month": "BIGINT", "day": "BIGINT",
    "dep_time": "BIGINT", "sched_dep_time": "BIGINT", "dep_delay": "BIGINT",
    "arr_time": "BIGINT", "sched_arr_time": "BIGINT", "arr_delay": "BIGINT",
    "carrier": "VARCHAR", "flight": "BIGINT", "tailnum": "VARCHAR", "origin": "VARCHAR", "dest": "VARCHAR",
    "air_time": "BIGINT", "distance": "BIGINT", "hour": "BIGINT", "minute": "BIGINT",
    "time_hour": "TIMESTAMP WITH TIME ZONE",
}  # fmt: skip


@cloaca.trigger(name="inbox_watcher", poll_interval="500ms", allow_concurrent=False)
def inbox_watcher():
    """Fire once for each file in the inbox, oldest first, and move it out once its run is recorded.

    What stands after a ``yield`` runs only when that fire's run is in the store. A crash before the move leaves the
    file where it is: it fires again with the same key, which is the same run. The key holds a digest of the content,
    so that a corrected file under an old name is another fire, and a file that was delivered twice is not.
    """
    found = [path for path in INBOX.glob("*.parquet") if not path.name.startswith(".")]
    for path in sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name)):
        digest = digest_of(path)
        accepted = ACCEPTED / f"{path.stem}.{digest[:12]}.parquet"
        context = {
            "filename": path.name,
            "inbox_path": str(path),
            "path": str(accepted),
            "triggered_at": datetime.now(timezone.utc).isoformat(),
        }
        yield cloaca.TriggerResult.fire(context, key=f"{path.name} {digest}")
        ACCEPTED.mkdir(exist_ok=True)
        path.rename(accepted)


with cloaca.WorkflowBuilder("data_ingest") as builder:
    builder.description("Check a file of flights and load it into the warehouse")

    @cloaca.task(id="validate", retry_condition="transient")  # a wrong schema does not get better by waiting
    def validate(context):
        """Refuse a file that has other columns than flights have, or no rows; say what is in it."""
        import duckdb

        path = located(context)
        with duckdb.connect() as memory:
            described = memory.execute("DESCRIBE SELECT * FROM read_parquet(?)", [path]).fetchall()
            wrong = differences({name: kind for name, kind, *_ in described})
            if wrong:
                raise ValueError(f"{context['filename']} is not a file of flights: {'; '.join(wrong)}")
            days = "SELECT make_date(year, month, day) AS day FROM read_parquet(?)"
            rows, first, last = memory.execute(f"SELECT count(*), min(day), max(day) FROM ({days})", [path]).fetchone()
        if rows == 0:
            raise ValueError(f"{context['filename']} has no rows")
        context.set("rows", rows)
        context.set("days", [str(first), str(last)])

    @cloaca.task(id="load", dependencies=["validate"])
    def load(context):
        """Put the file's rows into the warehouse, in place of those it brought before: twice is as good as once."""
        import duckdb

        path, filename = located(context), context["filename"]
        columns = ", ".join(COLUMNS)
        with duckdb.connect(WAREHOUSE) as warehouse:
            declared = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
            warehouse.execute(f"CREATE TABLE IF NOT EXISTS flights (source_file VARCHAR, {declared})")
            warehouse.begin()
            warehouse.execute("DELETE FROM flights WHERE source_file = ?", [filename])
            warehouse.execute(
                f"INSERT INTO flights (source_file, {columns}) SELECT ?, {columns} FROM read_parquet(?)",
                [filename, path],
            )
            warehouse.commit()
        context.set("loaded_at", datetime.now(timezone.utc).isoformat())


def digest_of(path):
    """SHA-256 of the file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def located(context):
    """Where the file is: a run may start before its trigger has moved the file, or while it is moving it."""
    for key in ("path", "inbox_path", "path"):
        if Path(context[key]).exists():
            return context[key]
    raise FileNotFoundError(f"{context['filename']} is neither at {context['path']} nor at {context['inbox_path']}")


def differences(found):
    """In what the columns of a file differ from those of flights, one text each."""
    missing = [f"{name} is missing" for name in COLUMNS if name not in found]
    other = [
        f"{name} is {kind}, not {COLUMNS[name]}" if name in COLUMNS else f"{name} is not expected"
        for name, kind in found.items()
        if COLUMNS.get(name) != kind
    ]
    return missing + other
