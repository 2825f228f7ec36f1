"""Where the home is, also where the user has none."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from cloaca.errors import CloacaError
from cloaca.home import Home, unmask_owner

USER = Path(pwd.getpwuid(os.getuid()).pw_dir)


@pytest.mark.parametrize(
    ("given", "environment", "root"),
    [
        pytest.param(Path("/given"), {"CLOACINA_HOME": "/named", "HOME": "/me"}, Path("/given"), id="an option wins"),
        pytest.param(None, {"CLOACINA_HOME": "/named", "HOME": "/me"}, Path("/named"), id="then the variable"),
        pytest.param(None, {"CLOACINA_HOME": "", "HOME": "/me"}, Path("/me/.cloacina"), id="then the user's"),
        pytest.param(None, {}, USER / ".cloacina", id="which the user database knows, too"),
    ],
)
def test_a_home_is_found(given: Path | None, environment: dict[str, str], root: Path) -> None:
    assert Home.find(given, environment) == Home(root)


@pytest.mark.parametrize(
    ("given", "environment", "words"),
    [
        pytest.param(None, {"HOME": ""}, "the user's home directory is not known", id="empty"),
        pytest.param(None, {"HOME": "me"}, "$HOME is 'me', which is not an absolute path", id="relative"),
        pytest.param(
            Path("~no-such-user/x"), {}, "~no-such-user/x: the home directory of that user", id="no such user"
        ),
    ],
)
def test_a_home_that_is_not_known_is_said(given: Path | None, environment: dict[str, str], words: str) -> None:
    with pytest.raises(CloacaError) as refusal:
        Home.find(given, environment)
    assert words in str(refusal.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user that nobody knows")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["status"], "set $CLOACINA_HOME, or give --home"),
        (["get", "crun", "--kubernetes"], "name one with $KUBECONFIG or --kubeconfig"),
    ],
    ids=["a daemon's", "a cluster's"],
)
def test_a_user_that_nobody_knows_has_none(words: list[str], sentence: str) -> None:
    code = """
import os, sys
import cloaca.cli.get, cloaca.cli.status, cloaca.store.kubernetes.store
from cloaca.cli.main import main
os.setgid(54321), os.setuid(54321)
for name in ("HOME", "CLOACINA_HOME", "KUBECONFIG"):
    os.environ.pop(name, None)
sys.exit(main(sys.argv[1:]))
"""
    said = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd="/")
    assert (said.returncode, sentence in said.stderr) == (1, True), said.stderr


def test_a_relative_path_needs_a_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(CloacaError, match="home: the current folder was removed: change to another one"):
        Home.find(Path("home"), {})
    assert Home.find(tmp_path, {}).root == tmp_path


@pytest.mark.parametrize(("before", "after"), [(0o022, 0o022), (0o777, 0o077), (0o002, 0o002)], ids=oct)
def test_the_umask_never_keeps_the_owner_out(before: int, after: int) -> None:
    kept = os.umask(before)
    unmask_owner()
    assert os.umask(kept) == after
