"""The main process of an inspection's pod: import the fetched package and leave a report.

It imports in a process of its own, and compares what is registered with the manifest.

It has no access to the API: the report is the container's termination message.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from argparse import Namespace
from collections.abc import Sequence

from cloaca.errors import (
    AgreementError,
    CloacaError,
    ImportCrashed,
    LoadError,
    PackageError,
    PythonUnsupported,
)
from cloaca.packages.acceptance import accept, files_of
from cloaca.packages.inventory import Inventory
from cloaca.packages.manifest import parse_manifest
from cloaca.packages.process import import_nothing_from_working_folder
from cloaca.packages.versions import python_fault
from cloaca.processes.exits import obey_at_once
from cloaca.processes.launch import Nursery
from cloaca.processes.mounted import Mounted, arguments, mounted, say_last
from cloaca.processes.report import report_accepted, report_failure


def main(given: Sequence[str] | None = None) -> int:
    """Returns 0 with a report, which may tell of a failure; 1 where there is nothing to inspect."""
    signal.signal(signal.SIGTERM, obey_at_once)
    parser = arguments("Import a package and report what it registers.", fetched=True)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds that the import may take")
    parser.add_argument("--published", action="store_true", help="whether the manifest is published, where it is long")
    asked = parser.parse_args(given)
    try:
        package = mounted(asked.archive, asked.digest, asked.scratch)
        manifest = parse_manifest(package.manifest.read_bytes())
    except PackageError as error:
        print(error, file=sys.stderr)
        say_last(str(error))
        return 1
    try:
        fault = python_fault(manifest.python.requires_python)
        if fault is not None:
            raise PythonUnsupported(fault)
        found = accept(manifest, asyncio.run(_import(package, asked)), files_of(package.root))
        report = report_accepted(found, manifest, published=asked.published)
    except AgreementError as error:
        print(error, file=sys.stderr)
        report = report_failure(error)
    except LoadError as error:
        print(f"{error}\n{error.traceback_text}", file=sys.stderr)
        report = report_failure(error)
    except CloacaError as error:
        print(error, file=sys.stderr)
        report = report_failure(ImportCrashed(str(error)))
    say_last(report)
    return 0


async def _import(package: Mounted, asked: Namespace) -> Inventory:
    nursery = await Nursery.start()
    try:
        zygote = nursery.package(root=package.root, entry_module=package.entry_module, env={}, log=None)
        return await zygote.inventory(asked.timeout)
    finally:
        await nursery.close()


if __name__ == "__main__":
    import_nothing_from_working_folder()
    sys.exit(main())
