"""Where a command works, of what its options, the environment and the settings of the home name."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloaca.cli.place import Cluster, Laptop, Wanted, choose
from cloaca.errors import CloacaError
from cloaca.home import Home

HOME = Path("/homes/a")
POSTGRES = "postgresql://me@host/db"


def test_the_store_of_an_option_comes_before_that_of_the_environment_and_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('store = "settings.db"\n')
    environment = {"CLOACINA_STORE": POSTGRES}

    def url(store: str | None, environment: dict[str, str]) -> str:
        place = choose(Wanted(home=tmp_path, store=store), environment)
        assert isinstance(place, Laptop)
        return place.url

    assert url("postgresql://me@other/db", environment) == "postgresql://me@other/db"
    assert url(None, environment) == POSTGRES
    assert url(None, {}) == f"sqlite:///{tmp_path}/settings.db"
    (tmp_path / "config.toml").unlink()
    assert url(None, {"CLOACINA_STORE": ""}) == str(tmp_path / "cloacina.db")


def test_a_file_is_there_once_it_was_made_and_a_server_may_always_have_something(tmp_path: Path) -> None:
    assert not Laptop(Home(tmp_path)).has_store
    assert Laptop(Home(tmp_path), POSTGRES).has_store
    (tmp_path / "cloacina.db").touch()
    assert Laptop(Home(tmp_path)).has_store


@pytest.mark.parametrize(
    ("wanted", "environment", "place"),
    [
        pytest.param(
            Wanted(store=POSTGRES), {"CLOACINA_KUBE_CONTEXT": "c"}, Laptop(Home.find(None, {}), POSTGRES), id="a store"
        ),
        pytest.param(
            Wanted(kube_context="c"),
            {"CLOACINA_STORE": POSTGRES},
            Cluster(kubeconfig=None, context="c"),
            id="a cluster, and a store in the environment",
        ),
        pytest.param(
            Wanted(home=HOME), {"CLOACINA_STORE": POSTGRES}, Laptop(Home(HOME), POSTGRES), id="a home, and its store"
        ),
    ],
)
def test_an_option_comes_before_the_environment(wanted: Wanted, environment: dict[str, str], place: object) -> None:
    assert choose(wanted, environment) == place


@pytest.mark.parametrize("wanted", [Wanted(store=POSTGRES, kubernetes=True), Wanted(home=HOME, kube_context="c")])
def test_a_home_or_store_and_a_cluster_contradict_each_other(wanted: Wanted) -> None:
    with pytest.raises(CloacaError, match="give one or the other"):
        choose(wanted, {})
