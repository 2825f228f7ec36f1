"""The mechanism that runs documents: what it reads, and that it notices what is wrong."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from local.docs.console import Command, File, agrees, play, steps

DOCUMENT = """
Write this:

<!-- file: greeting/hello.txt -->
```text
hello
```

```console
$ cd greeting
$ cat hello.txt
hello
$ printf 'a %s\\n' \\
> one
a …
```

```python
not = "part of the session"
```
"""


def test_a_document_is_files_and_commands_in_order() -> None:
    assert steps(DOCUMENT) == [
        File(line=6, path="greeting/hello.txt", content="hello\n"),
        Command(line=10, text="cd greeting", shown=()),
        Command(line=11, text="cat hello.txt", shown=("hello",)),
        Command(line=13, text="printf 'a %s\\n' \\\none", shown=("a …",)),
    ]


def test_a_session_keeps_its_folder_and_finds_its_files(tmp_path: Path) -> None:
    assert play(DOCUMENT, tmp_path) == 4
    assert (tmp_path / "greeting" / "hello.txt").read_text() == "hello\n"


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        pytest.param(("NAME   AGE", "demo   …"), "NAME  AGE\ndemo  3s\n", True, id="widths and ages differ"),
        pytest.param(("a", "…", "b"), "a\nx\ny\nb\n", True, id="lines left out"),
        pytest.param(("a", "…", "b"), "a\nb\n", True, id="no line left out"),
        pytest.param(("a", "b"), "a\nx\nb\n", False, id="a line too many"),
        pytest.param(("a",), "b\n", False, id="another line"),
        pytest.param(("a.c",), "abc\n", False, id="a dot is a dot"),
    ],
)
def test_what_is_printed_is_compared_with_what_is_shown(shown: tuple[str, ...], printed: str, same: bool) -> None:
    assert agrees(shown, printed) is same


@pytest.mark.parametrize(
    ("session", "complaint"),
    [
        pytest.param("$ echo one\ntwo", "it printed:\none", id="another output"),
        pytest.param("$ false", "exit code 1", id="a failure that is not shown"),
        pytest.param("$ echo Error: no\nError: no", "exit code 0", id="an error that is none"),
    ],
)
def test_a_document_that_is_wrong_is_found_out(tmp_path: Path, session: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match="line 2") as caught:
        play(f"```console\n{session}\n```\n", tmp_path)
    assert complaint in str(caught.value)


def test_what_runs_in_the_background_ends_with_the_session(tmp_path: Path) -> None:
    play("```console\n$ (sleep 600; echo) & echo $! > pid\n```\n", tmp_path)
    pid = (tmp_path / "pid").read_text().strip()
    deadline = time.monotonic() + 10
    while _runs(Path(f"/proc/{pid}/stat")):  # a process that was killed takes a moment to be gone
        assert time.monotonic() < deadline


def _runs(state: Path) -> bool:
    try:
        return state.read_text().split()[2] != "Z"
    except OSError:
        return False
