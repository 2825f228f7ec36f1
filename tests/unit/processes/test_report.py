"""What an inspection found comes back whole through a container's termination message."""

import base64
import json
import zlib

import pytest
from builders import archive, declared

from cloaca.errors import AgreementError, ImportCrashed, ImportTimedOut, LoadError
from cloaca.packages.acceptance import Accepted, accepted
from cloaca.packages.archive import read_archive
from cloaca.packages.manifest import Manifest
from cloaca.processes.report import LONGEST, read_report, report_accepted, report_failure
from cloaca.resources.package import WorkflowEntry


def package(count: int) -> tuple[Manifest, Accepted]:
    """A manifest of ``count`` tasks in a chain, and what is accepted where the code agrees with it."""
    names = [f"load_{index * 7919 % 100_003:05d}" for index in range(count)]
    tasks = [
        {"id": name, "function": f"demo.steps:{name}", "dependencies": names[index - 1 : index] if index else []}
        for index, name in enumerate(names)
    ]
    manifest = read_archive(archive("", tasks=tasks, triggers=[declared("inbox", "one")])).manifest
    one = WorkflowEntry(name="one", description="The first.", tasks=tuple(names[: count // 3 + 1]))
    rest = WorkflowEntry(name="rest", tasks=tuple(reversed(names[count // 3 + 1 :])))
    return manifest, accepted(manifest, (one, rest), ["odd, but no reason"])


@pytest.mark.parametrize(("count", "published"), [(1, False), (60, False), (400, True), (2_000, True)])
def test_what_is_accepted_comes_back_whole(count: int, published: bool) -> None:
    manifest, found = package(count)
    if not published:
        assert read_report(report_accepted(found, manifest, published=False), None) == found
    text = report_accepted(found, manifest, published=True)

    assert len(text.encode()) <= LONGEST
    assert read_report(text, manifest) == found


@pytest.mark.parametrize(("count", "published"), [(400, False), (5_000, True)], ids=["no manifest", "too long for it"])
def test_what_does_not_fit_is_refused_with_words(count: int, published: bool) -> None:
    manifest, found = package(count)

    with pytest.raises(LoadError, match=f"{count} tasks and 1 triggers is longer than the 4096 bytes"):
        read_report(report_accepted(found, manifest, published=published), manifest)


def test_code_that_differs_from_its_manifest_comes_back_as_that() -> None:
    differences = "\n".join(f"manifest declares task `t{number}`, but the code has none" for number in range(500))

    with pytest.raises(AgreementError, match="manifest declares task `t0`"):
        read_report(report_failure(AgreementError(differences)), None)


@pytest.mark.parametrize(
    "error",
    [
        LoadError("importing 'demo' failed: KeyError: 'X'", "Traceback: …\nKeyError: 'X'"),
        ImportTimedOut("the import took longer than 60 s"),
        ImportCrashed("signal 11 (SIGSEGV)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failure_comes_back_as_the_same_error(error: LoadError) -> None:
    manifest, _ = package(1)

    with pytest.raises(type(error)) as caught:
        read_report(report_failure(error), manifest)

    assert type(caught.value) is type(error)
    assert (str(caught.value), caught.value.traceback_text) == (str(error), error.traceback_text)


def test_of_a_long_traceback_the_end_comes_back() -> None:
    manifest, _ = package(1)
    import random

    chance = random.Random(7)
    noise = "".join(chr(chance.randrange(33, 0x2FF)) for _ in range(30_000))

    text = report_failure(LoadError("failed", f"{noise}\nKeyError: 'X'"))

    assert len(text) <= LONGEST
    with pytest.raises(LoadError) as caught:
        read_report(text, manifest)
    assert caught.value.traceback_text.endswith("KeyError: 'X'")


def told(data: object) -> str:
    return base64.b85encode(zlib.compress(json.dumps(data).encode(), 9)).decode()


NONSENSE = {
    "nothing": "",
    "text": "not base85 ~~~ \x00",
    "no zlib": base64.b85encode(b"not zlib").decode(),
    "noise": "a" * 4096,
    "longer than a kubelet keeps": "a" * 10_000_000,
    "a list": told([1]),
    "a bomb": base64.b85encode(zlib.compress(b"[" * 3_000_000, 9)).decode(),
    "nested": told({"accepted": json.loads("[" * 900 + "]" * 900)}),
    "no version": told({"accepted": {"workflows": []}}),
    "an unknown field": told({"accepted": {"version": "1.0.0", "secret": 1}}),
    "a trigger without a name": told(
        {"accepted": {"version": "1", "triggers": [{"name": "", "workflow": "w", "pollInterval": "1s"}]}}
    ),
    "a name of a megabyte": told({"accepted": {"version": "1" * 1_000_000}}),
    "tasks beyond the manifest's": told({"agreed": {"workflows": [["demo", "", [[0, 7]]]], "warnings": []}}),
    "tasks again and again": told({"agreed": {"workflows": [["demo", "", [[0, 1]] * 9]], "warnings": []}}),
    "tasks before the first": told({"agreed": {"workflows": [["demo", "", [[-1, 1]]]], "warnings": []}}),
    "tasks that are words": told({"agreed": {"workflows": [["demo", "", "all"]], "warnings": []}}),
    "a failure that is a number": told({"failed": 3}),
}


@pytest.mark.parametrize("text", NONSENSE.values(), ids=NONSENSE)
def test_what_user_code_wrote_in_its_place_is_a_crash(text: str) -> None:
    manifest, _ = package(1)

    with pytest.raises(ImportCrashed, match="no report"):
        read_report(text, manifest)
