"""What tests of several folders share: a control plane for each process of the tests, a namespace for each test."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import binaries, rights
from cluster.control_plane import ControlPlane, given_cluster
from cluster.control_plane import control_plane as started
from groups import API_SERVER, OPERATORS

UNUSED = pytest.StashKey[list[str]]()
CLUSTER = Path(__file__).parent / "cluster"


def pytest_configure(config: pytest.Config) -> None:
    """Let programs of the tests be interrupted, though a shell that runs us in the background has Ctrl-C ignored. Give
    all processes of the tests one folder for the rights that they use."""
    if not hasattr(config, "workerinput"):
        os.environ[rights.FOLDER] = tempfile.mkdtemp(prefix="cloacina-rights-")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give whoever needs a control plane to one of two processes of the tests: each process would start its own."""
    for item in items:
        if "control_plane" in getattr(item, "fixturenames", ()):
            charts = item.path.is_relative_to(CLUSTER / "chart")
            item.add_marker(OPERATORS if item.path.is_relative_to(CLUSTER) and not charts else API_SERVER)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail where a role of the chart allows what no test used, if all tests ran that use them."""
    config = session.config
    if hasattr(config, "workerinput"):
        return
    folder = Path(os.environ[rights.FOLDER])
    part = bool(config.option.keyword) or config.option.markexpr not in ("", "not long")
    part = part or any("::" in argument for argument in config.args)
    lines = rights.judged(folder, part=part or exitstatus != pytest.ExitCode.OK)
    if lines:
        config.stash[UNUSED] = lines
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    shutil.rmtree(folder, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the rights that nobody used."""
    lines = config.stash.get(UNUSED, [])
    if lines:
        terminalreporter.section("rights that the chart grants and no test used", red=True)
        terminalreporter.write_line("Take them out of manifests/chart/templates/rbac-*.yaml, or test what needs them:")
        for line in lines:
            terminalreporter.write_line(f"  {line}")


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd, kube-apiserver and kube-controller-manager with our kinds, or the cluster of ``$KUBECONFIG``.

    Skips where neither can be had.
    """
    folder = tmp_path_factory.mktemp("control-plane")
    try:
        if "KUBECONFIG" in os.environ:
            kubectl = binaries.find("kubectl")["kubectl"]
            plane = given_cluster(Path(os.environ["KUBECONFIG"]), kubectl, folder)
            plane.install_crds()
            yield plane
            return
        programs = binaries.find(*binaries.CONTROL_PLANE)
    except binaries.Unavailable as error:
        pytest.skip(str(error))
    with started(programs, folder) as plane:
        plane.install_crds()
        yield plane


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A namespace of the test's own, which goes with it."""
    name = control_plane.namespace(f"test-{os.urandom(4).hex()}")
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")
