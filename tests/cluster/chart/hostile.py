"""Two packages in one namespace, and whoever acts as one of their pods."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

from cluster.kubectl import Kubectl

DIGEST = "sha256:" + "0" * 64
COUNTER = itertools.count()
MERGE = "--type=merge"


def package(name: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "cloacina.io/v1alpha1",
        "kind": "CloacinaPackage",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"source": {"configMap": {"name": name}}},
    }


def sourced(name: str, namespace: str, url: str, **spec: Any) -> dict[str, Any]:
    return {**package(name, namespace), "spec": {"source": {"url": url}, **spec}}


def trigger(name: str, of: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "cloacina.io/v1alpha1",
        "kind": "Trigger",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"packageRef": {"name": of}, "name": "inbox"},
    }


def run(name: str, of: str, namespace: str, fired_by: str | None = None) -> dict[str, Any]:
    spec = {"packageRef": {"name": of}, "workflow": "ingest", "digest": DIGEST}
    if fired_by is not None:
        spec["triggerRef"] = {"name": fired_by, "uid": "11111111-1111-1111-1111-111111111111"}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "cloacina.io/v1alpha1", "kind": "WorkflowRun", "metadata": metadata, "spec": spec}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Two packages, ``alpha`` and ``alpha-b``, each with a trigger and a run, in one namespace."""

    admin: Kubectl
    anonymous: Kubectl
    namespace: str

    def poller(self, of: str = "alpha") -> Kubectl:
        return self.pod(f"{of}-poller-7d9f8b6c5d-x7k2p", "cloacina-poller")

    def process(self, of: str = "alpha-1") -> Kubectl:
        return self.pod(f"{of}-x7k2p", "cloacina-run")

    def pod(self, name: str, account: str) -> Kubectl:
        return self.admin.pod_identity(self.anonymous, self.namespace, account, name)

    def own(self, pod: str) -> Kubectl:
        """A pod of a package that brought its own account, to which somebody bound both roles."""
        return self.pod(pod, "own-of-both")

    def gitops(self) -> Kubectl:
        """An account of another namespace that may submit runs in this one."""
        token = self.admin("create", "token", "applier", "-n", "default").strip()
        return replace(self.anonymous, token=token)

    def unbound(self, account: str) -> Kubectl:
        token = self.admin("create", "token", account, "-n", self.namespace).strip()
        return replace(self.anonymous, token=token)


def unique(prefix: str) -> str:
    return f"{prefix}-t{next(COUNTER)}"
