"""What a fetch found comes back through a container's termination message, and nonsense is nothing."""

import base64
import json
import zlib

import pytest

from cloaca.errors import ImportCrashed
from cloaca.processes.fetch_report import FetchReport, read_fetch_report, refused, write_fetch_report
from cloaca.processes.report import LONGEST

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    "report",
    [
        FetchReport(digest=DIGEST, size=7, version="1.0.0", revision='ETag: "x"', published=True),
        FetchReport(digest=DIGEST, unchanged=True),
        refused("FetchFailed", "the source is away", retry=True),
        refused("ArchiveInvalid", "the file is not a tar archive", digest=DIGEST, size=3),
    ],
    ids=["an archive", "nothing new", "a source that is away", "no archive"],
)
def test_it_comes_back(report: FetchReport) -> None:
    assert read_fetch_report(write_fetch_report(report)) == report


def test_of_a_long_message_the_beginning_comes_back() -> None:
    message = "first " + "".join(chr(33 + index * 7919 % 500) for index in range(9_000))

    text = write_fetch_report(refused("ManifestInvalid", message))

    assert len(text) <= LONGEST
    assert read_fetch_report(text).message.startswith("first ")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"digest": "sha256:none"},
        {"digest": DIGEST, "size": -1},
        {"digest": DIGEST, "size": "many"},
        {"digest": DIGEST, "more": 1},
        {"digest": DIGEST, "version": "1" * 300},
        {"refusal": "BecauseISaySo"},
        {"refusal": "FetchFailed", "message": {"a": "text"}},
    ],
    ids=str,
)
def test_anything_else_is_a_crash(data: object) -> None:
    with pytest.raises(ImportCrashed, match="no report"):
        read_fetch_report(base64.b85encode(zlib.compress(json.dumps(data).encode())).decode())
