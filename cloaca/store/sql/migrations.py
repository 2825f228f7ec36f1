"""Which steps bring a database's schema from an older version to ours. Runs none of them.

The n-th file of a kind, ``sqlite_1.sql`` and so on, leads from version n - 1 to n. Files are only ever added.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from cloaca.errors import StoreUnavailable
from cloaca.store.sql.statements import read


def migrations_of(kind: str) -> tuple[str, ...]:
    """The texts of all the files of ``kind``, in their order."""
    prefix = f"{kind}_"
    names = [file.name for file in files(__package__).iterdir() if file.name.endswith(".sql")]
    count = sum(name.startswith(prefix) for name in names)
    return tuple(read(f"{prefix}{number}.sql") for number in range(1, count + 1))


def pending(migrations: Sequence[str], version: int, where: str) -> list[tuple[int, str]]:
    """The steps that a database of ``version`` lacks, each with the version that it leads to.

    Raises StoreUnavailable where ``version`` is newer than all of ``migrations``; ``where`` names the database.
    """
    ours = len(migrations)
    if version > ours:
        raise StoreUnavailable(
            f"{where} was written by a newer version (schema {version}, ours is {ours}): "
            "upgrade cloacina, or use another database"
        )
    return list(enumerate(migrations, start=1))[version:]
