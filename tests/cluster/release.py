"""The chart's accounts, roles and policies for one namespace on an API server, and the operator's own settings.

Starts nothing: the operator is a process of the tests, with the token and the environment that its pod would have.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cluster.control_plane import ControlPlane

CHART = Path(__file__).parents[2] / "manifests" / "chart"
RIGHTS = (
    "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding",
    "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Release:
    """What the chart makes of some values, in a namespace."""

    plane: ControlPlane
    namespace: str
    documents: list[dict[str, Any]]

    @classmethod
    def render(cls, helm: Path, plane: ControlPlane, namespace: str, *settings: str) -> Release:
        """With a name of its own, so that several can be on one API server."""
        own = f"packageNamespaces={{{namespace}}}"  # where nothing else is said: the tests have one namespace for all
        flags = [flag for setting in ("crds.install=false", own, *settings) for flag in ("--set", setting)]
        command = [str(helm), "template", f"cloacina-{namespace}", str(CHART), "--namespace", namespace, *flags]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        documents = [document for document in yaml.safe_load_all(text) if document]
        return cls(plane=plane, namespace=namespace, documents=documents)

    def install(self) -> None:
        """Who may do what; no Deployment."""
        self.plane.apply(*self._rights)

    def remove(self) -> None:
        """What is not in the namespace, and so does not go with it."""
        for document in self._rights:
            if "namespace" not in document["metadata"]:
                self.plane.kubectl("delete", document["kind"], document["metadata"]["name"], "--wait=false")

    @property
    def _rights(self) -> list[dict[str, Any]]:
        return [document for document in self.documents if document["kind"] in RIGHTS]

    @property
    def account(self) -> str:
        """Of the operator."""
        return str(self._pod["serviceAccountName"])

    @property
    def user(self) -> str:
        """As the API server calls it."""
        return f"system:serviceaccount:{self.namespace}:{self.account}"

    @property
    def environment(self) -> dict[str, str]:
        """Of the operator's container, without what its pod decides."""
        (container,) = self._pod["containers"]
        return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}

    @property
    def _pod(self) -> dict[str, Any]:
        (found,) = (document for document in self.documents if document["kind"] == "Deployment")
        pod: dict[str, Any] = found["spec"]["template"]["spec"]
        return pod

    def kubeconfig(self, name: str) -> Path:
        """With a token of the operator."""
        token = self.plane.token(self.account, self.namespace)
        return self.plane.kubeconfig_of_token(token, f"{self.namespace}-{name}", self.namespace)
