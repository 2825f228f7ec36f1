"""The commands ``pack`` and ``check``: make an archive, and find everything that would keep it from being accepted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from cloaca.cli.session import Session, command, commands
from cloaca.cli.source import archive_bytes
from cloaca.cli.tables import line, took, widths_of
from cloaca.cli.terminal import block, remark, say, styled
from cloaca.errors import CloacaError, LoadError
from cloaca.packages.agreement import check_registered
from cloaca.packages.archive import Archive, Limits, unpack
from cloaca.packages.build import build_package
from cloaca.packages.examine import Examined, Step, examine
from cloaca.packages.host import host_warnings
from cloaca.packages.inspection import IMPORT_TIMEOUT, inspect_package
from cloaca.packages.scratch import scratch_folder
from cloaca.packages.versions import python_fault

app = commands()


@command(app, "pack", anywhere=False)
def pack(
    session: Session,  # noqa: ARG001  # every command gets it
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="It has the pyproject.toml.")] = Path(),
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A folder, or a file name; the current folder if not given.", show_default=False
        ),
    ] = None,
) -> None:
    """Pack a folder into a .cloacina archive.

    The same files make the same archive, byte for byte, on every machine. Its digest is printed: a CloacinaPackage can
    pin it as spec.digest.

    \b
    Example:
      cloaca pack .
      cloaca pack data-ingest -o ~/.cloacina/packages
    """
    built = build_package(folder, output or Path())
    for warning in built.warnings:
        remark(f"warning: {warning}")
    say(f"{built.path}  {built.digest}")


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One step of the way of an archive, and what came of it."""

    step: str
    detail: str = ""
    faults: tuple[str, ...] = ()
    reached: bool = True

    @property
    def result(self) -> str:
        """ok, fault, or nothing where it did not come that far."""
        return "" if not self.reached else "fault" if self.faults else "ok"


@command(app, "check", anywhere=False)
def check(
    session: Session,  # noqa: ARG001  # every command gets it
    path: Annotated[Path, typer.Argument(metavar="ARCHIVE|FOLDER", help="A folder is packed first.")] = Path(),
) -> None:
    """Check an archive or a folder: all that could keep it from being accepted.

    The archive itself, the manifest with all its faults, the names by reading the code, then the import in a process of
    its own and what the decorators registered there. Exit code 1: it would be refused.

    \b
    Example:
      cloaca check .
      cloaca check data-ingest-1.0.0.cloacina
    """
    with scratch_folder() as folder:
        limits = Limits()
        data = archive_bytes(path, limits)
        examined = examine(data, limits)
        steps, warnings = _read(examined, len(data)), list(examined.manifest.warnings if examined.manifest else ())
        if examined.archive is not None and not any(step.faults for step in steps):
            root = folder / "package"
            unpack(data, root, limits)
            imported, warnings = _imported(examined.archive, root)
            steps += imported
            warnings = [*host_warnings(examined.archive.files), *warnings]
        else:
            steps += [Checked(step="import", reached=False), Checked(step="agreement", reached=False)]
    say(*_table(steps))
    for warning in warnings:
        say(f"{styled('warning')}: {warning}")
    faults = [fault for step in steps for fault in step.faults]
    if faults:
        say(*(row for fault in faults for row in block(fault.splitlines())))
        raise CloacaError(f"{path} would be refused: see {'the fault' if len(faults) == 1 else 'the faults'} above")


def _read(examined: Examined, size: int) -> list[Checked]:
    """What can be said without running anything."""
    archive, manifest, at = examined.archive, examined.manifest, examined.refused_at
    whole = f"{len(archive.files)} files, {size:,} bytes, {archive.digest}" if archive else f"{size:,} bytes"
    counted = ""
    if manifest is not None:
        tasks, triggers = len(manifest.tasks), len(manifest.triggers)
        counted = f"{manifest.name} {manifest.version}: {_count(tasks, 'task')}, {_count(triggers, 'trigger')}"
    order = (Step.ARCHIVE, Step.MANIFEST, Step.AGREEMENT)
    failed = len(order) if at is None else order.index(at)
    details = {Step.ARCHIVE: whole, Step.MANIFEST: counted, Step.AGREEMENT: "the code names what the manifest declares"}
    return [
        Checked(
            step="names" if step is Step.AGREEMENT else step.value,
            detail=details[step] if index < failed else "",
            faults=examined.faults if index == failed else (),
            reached=index <= failed,
        )
        for index, step in enumerate(order)
    ]


def _imported(archive: Archive, root: Path) -> tuple[list[Checked], list[str]]:
    """(the last two steps, warnings): import it in a process of its own, and compare."""
    fault = python_fault(archive.manifest.python.requires_python)
    if fault is not None:
        return [Checked(step="import", faults=(fault,)), Checked(step="agreement", reached=False)], []
    begun = time.monotonic()
    try:
        inventory = inspect_package(root, archive.manifest.entry_module, IMPORT_TIMEOUT)
    except LoadError as error:
        fault = f"{error}\n{error.traceback_text}" if error.traceback_text else str(error)
        return [Checked(step="import", faults=(fault,)), Checked(step="agreement", reached=False)], []
    seconds = time.monotonic() - begun
    report = check_registered(archive.manifest, inventory)
    faults = tuple(str(disagreement) for disagreement in report.disagreements)
    workflows = ", ".join(workflow.name for workflow in inventory.workflows)
    return [
        Checked(step="import", detail=f"{archive.manifest.entry_module}, {took(seconds)}"),
        Checked(step="agreement", detail="" if faults else f"workflows: {workflows}", faults=faults),
    ], [str(warning) for warning in report.warnings]


def _table(steps: Sequence[Checked]) -> list[str]:
    rows = [("STEP", "RESULT", "DETAIL")]
    rows += [(step.step, step.result or "not reached", step.detail) for step in steps]
    widths = widths_of(rows)
    return [line((row[0], styled(row[1].ljust(widths[1])), row[2]), (widths[0], 0, 0)) for row in rows]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
