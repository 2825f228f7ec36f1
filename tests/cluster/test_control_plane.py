"""The control plane that the other tests stand on: it serves our kinds, tells identities apart, and leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cluster import binaries
from cluster.control_plane import ControlPlane
from cluster.control_plane import control_plane as started

from cloaca.resources import STORED_KINDS
from cloaca.resources.ref import GROUP


def test_it_serves_our_kinds(control_plane: ControlPlane) -> None:
    served = control_plane.kubectl("api-resources", "--api-group=cloacina.io", "-o", "name").split()
    assert served == sorted(f"{kind.PLURAL}.{GROUP}" for kind in STORED_KINDS)


def test_a_token_is_its_service_account_and_may_do_nothing_yet(control_plane: ControlPlane, namespace: str) -> None:
    kubeconfig = control_plane.kubeconfig_of_token(control_plane.token("default", namespace), "nobody", namespace)
    other = ControlPlane(
        folder=control_plane.folder, url="", kubectl_program=control_plane.kubectl_program, kubeconfig=kubeconfig
    )
    said = json.loads(other.kubectl("auth", "whoami", "-o", "json"))
    assert said["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:default"
    with pytest.raises(RuntimeError, match="forbidden"):
        other.kubectl("get", "secrets")


def test_a_user_has_a_certificate_of_their_own(control_plane: ControlPlane) -> None:
    if not control_plane.processes:
        pytest.skip("the cluster of $KUBECONFIG has an authority that we cannot sign for")
    kubeconfig = control_plane.kubeconfig_of_user("ada", ("writers",))
    other = ControlPlane(
        folder=control_plane.folder, url="", kubectl_program=control_plane.kubectl_program, kubeconfig=kubeconfig
    )
    said = json.loads(other.kubectl("auth", "whoami", "-o", "json"))
    assert said["status"]["userInfo"]["username"] == "ada"
    assert "writers" in said["status"]["userInfo"]["groups"]


def test_nothing_of_it_outlives_the_block(control_plane: ControlPlane, tmp_path: Path) -> None:
    if not control_plane.processes:
        pytest.skip("the cluster of $KUBECONFIG is not ours to stop")
    with started(binaries.find(*binaries.CONTROL_PLANE), tmp_path) as second:
        processes = list(second.processes.values())
        assert [process.poll() for process in processes] == [None, None, None]
    assert all(process.poll() is not None for process in processes)


def test_an_api_server_that_was_stopped_has_everything_again(control_plane: ControlPlane, namespace: str) -> None:
    if not control_plane.processes:
        pytest.skip("the cluster of $KUBECONFIG is not ours to stop")
    control_plane.kubectl("create", "configmap", "kept", "-n", namespace)
    control_plane.stop("kube-apiserver")
    with pytest.raises(RuntimeError, match="refused"):
        control_plane.kubectl("get", "configmaps", "-n", namespace)
    control_plane.start("kube-apiserver")
    assert "kept" in control_plane.kubectl("get", "configmaps", "-n", namespace)
