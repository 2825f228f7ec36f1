"""What a fetch found, as text that fits a container's termination message. Pure: no I/O."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, ValidationError

from cloaca.processes.report import LONGEST, nonsense, packed, unpacked
from cloaca.resources.meta import Schema

Refusal = Literal[
    "FetchFailed",
    "SourceUnsupported",
    "DigestMismatch",
    "ArchiveInvalid",
    "ManifestInvalid",
    "NamesDisagree",
    "PythonUnsupported",
]
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MESSAGE = 3_000  # characters


class FetchReport(Schema):
    """What came of getting one archive and of looking at it without running it."""

    digest: str | None = Field(default=None, pattern=_DIGEST.pattern + "$")
    """Of the bytes that the source gave; unset: it gave none."""
    size: int = Field(default=0, ge=0)
    """How many there are."""
    version: str | None = Field(default=None, max_length=253)
    """As the manifest says; unset: it could not be read."""
    revision: str | None = Field(default=None, max_length=600)
    """What the source calls this version of it, for the next conditional request."""
    unchanged: bool = False
    """Whether these are bytes that the reader knows already: nothing was stored, and nothing is imported."""
    published: bool = False
    """Whether the manifest is in a ConfigMap, since it does not fit into a report."""
    refusal: Refusal | None = None
    """Why the archive is refused: a reason of a condition; unset: nothing is wrong so far."""
    message: str = Field(default="", max_length=_MESSAGE)
    """The same in words."""
    retry: bool = False
    """Whether another try may help."""

    @property
    def bytes_came(self) -> bool:
        """Whether there is an archive that was looked at."""
        return self.digest is not None and self.refusal != "DigestMismatch"


def refused(reason: Refusal, message: str, *, retry: bool = False, **more: Any) -> FetchReport:
    """A report that says why there is nothing to import."""
    return FetchReport(refusal=reason, message=message[:_MESSAGE], retry=retry, **more)


def write_fetch_report(report: FetchReport) -> str:
    """The text."""
    message = report.message
    while True:
        text = packed(report.model_copy(update={"message": message}).to_json_dict())
        if len(text) <= LONGEST:
            return text
        message = message[: len(message) // 2]


def read_fetch_report(text: str) -> FetchReport:
    """What ``text`` says. Raises ImportCrashed where it is no report."""
    data = unpacked(text)
    try:
        report = FetchReport.model_validate(data)
    except ValidationError as error:
        raise nonsense() from error
    if report.refusal is None and report.digest is None:
        raise nonsense()
    return report
