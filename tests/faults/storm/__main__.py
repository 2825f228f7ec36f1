"""A storm of SIGKILLs on a real daemon: ``python -m faults.storm --seconds 300 --seed 7``."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from faults.storm.blow import blow

PAGE = Path(__file__).parents[3] / "docs/reference/reliability.md"
BEGIN, END = "<!-- storm: written by make faults -->", "<!-- end of the storm -->"


def main() -> int:
    """Returns 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m faults.storm", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"write the sentence into {PAGE.name}")
    parser.add_argument("--keep", type=Path, help="leave everything in this new folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="storm-") as folder:
        if given.keep is not None:
            given.keep.mkdir()
        storm = asyncio.run(blow(given.keep or Path(folder), seconds=given.seconds, seed=given.seed))
    print(storm)
    if given.write:
        head, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n\n{storm}\n\n{END}{rest.split(END)[1]}")
    for broken in storm.broken:
        print(f"  broken: {broken}")
    return 1 if storm.broken else 0


if __name__ == "__main__":
    sys.exit(main())
