"""Which API server a kubeconfig means, and several of them together, as kubectl reads them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloaca.errors import StoreUnavailable
from cloaca.store.kubernetes.config import find_server, parse_url

ONE = """
current-context: here
contexts:
- {name: here, context: {cluster: one, user: me, namespace: team-a}}
- {name: there, context: {cluster: two, user: you}}
clusters:
- {name: one, cluster: {server: "http://127.0.0.1:1/"}}
users:
- {name: me, user: {token: mine}}
"""
TWO = """
current-context: there
contexts:
- {name: here, context: {cluster: two}}
clusters:
- {name: two, cluster: {server: "http://127.0.0.1:2"}}
users:
- {name: you, user: {tokenFile: token}}
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    one, two = tmp_path / "one", tmp_path / "other" / "two"
    two.parent.mkdir()
    one.write_text(ONE)
    two.write_text(TWO)
    (two.parent / "token").write_text("yours\n")
    return one, two


def test_of_several_files_the_first_that_says_something_holds(files: tuple[Path, Path]) -> None:
    environment = {"KUBECONFIG": os.pathsep.join(map(str, (files[0].with_name("missing"), *files)))}
    here = find_server(parse_url("kubernetes:"), environment)
    assert (here.url, here.namespace, here.token()) == ("http://127.0.0.1:1", "team-a", "mine")


def test_a_context_may_name_what_another_file_says_and_paths_are_that_files_own(files: tuple[Path, Path]) -> None:
    environment = {"KUBECONFIG": os.pathsep.join(map(str, files))}
    there = find_server(parse_url("kubernetes:?context=there"), environment)
    assert (there.url, there.namespace, there.token()) == ("http://127.0.0.1:2", "default", "yours")


def test_a_package_says_what_is_kept_in_memory_and_means_nothing_else() -> None:
    assert parse_url("kubernetes:?cached=true&package=demo").package == "demo"
    with pytest.raises(StoreUnavailable, match="package says what is kept in memory, so it needs cached=true"):
        parse_url("kubernetes:?package=demo")


def test_a_file_that_is_named_holds_over_the_environment(files: tuple[Path, Path]) -> None:
    wanted = parse_url(f"kubernetes://{files[0]}")
    assert find_server(wanted, {"KUBECONFIG": str(files[1])}).namespace == "team-a"


@pytest.mark.parametrize(
    ("url", "said"),
    [("kubernetes:?context=nowhere", "contexts has no 'nowhere', but here, there"),
     ("kubernetes:?context=there", "clusters has no 'two', but one")],
    ids=["context", "cluster"],
)  # fmt: skip
def test_what_is_not_there_is_told_with_what_is(files: tuple[Path, Path], url: str, said: str) -> None:
    with pytest.raises(StoreUnavailable, match=said):
        find_server(parse_url(url), {"KUBECONFIG": str(files[0])})
