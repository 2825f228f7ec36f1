"""A control plane of our own: etcd, kube-apiserver and kube-controller-manager on free ports of the loopback.

Starts and stops them, and makes identities. Runs no node: pods stay Pending. Whatever ends the tests ends it too.
"""

from __future__ import annotations

import base64
import ctypes
import json
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cluster import certificates

CRDS = Path(__file__).parents[2] / "crds"
READY_SECONDS = 60.0
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "omitManagedFields": True,
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},  # the controllers
        {"level": "None", "users": ["system:apiserver", "system:kube-controller-manager"]},
        {"level": "None", "nonResourceURLs": ["*"]},
        {"level": "Metadata"},
    ],
}
"""What everybody but the control plane itself asked, and what came of it."""
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class NotReady(Exception):
    """A program of the control plane ended or never answered; the text has the end of its log."""


class Asked(NamedTuple):
    """One request, and its answer."""

    verb: str
    resource: str  # with its subresource: workflowruns/status
    name: str
    code: int
    path: str


@dataclass(kw_only=True)
class ControlPlane:
    """A cluster without nodes, and who speaks to it. ``kubeconfig`` is the administrator's."""

    folder: Path
    url: str
    kubectl_program: Path
    kubeconfig: Path
    within: tuple[str, ...] = ()  # before each command that speaks to it, where it is not in our network namespace
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)  # empty: somebody else's cluster
    commands: dict[str, list[str]] = field(default_factory=dict)
    namespaces: list[str] = field(default_factory=list)  # made for all tests of this process

    # --- as the administrator

    def kubectl(self, *arguments: str, document: Any = None, check: bool = True) -> str:
        """What kubectl prints; ``document`` goes in as JSON. Raises RuntimeError with what it said."""
        command = [*self.within, str(self.kubectl_program), f"--kubeconfig={self.kubeconfig}", *arguments]
        given = None if document is None else json.dumps(document)
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120, check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *documents: Mapping[str, Any]) -> None:
        """Make the objects as they are given."""
        self.kubectl("apply", "-f", "-", document={"apiVersion": "v1", "kind": "List", "items": list(documents)})

    def namespace(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        """A namespace of that name, whose default service account is there; made unless it exists."""
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}})
        self.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=60s")
        return name

    def install_crds(self) -> None:
        """Our kinds, served when this returns."""
        self.kubectl("apply", "--server-side", "-f", str(CRDS))
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")

    # --- identities

    def token(self, service_account: str, namespace: str, pod: str | None = None) -> str:
        """A token of a service account, bound to a pod where one is given."""
        bound = [] if pod is None else ["--bound-object-kind=Pod", f"--bound-object-name={pod}"]
        return self.kubectl("create", "token", service_account, "-n", namespace, *bound).strip()

    def kubeconfig_of_token(self, token: str, name: str, namespace: str = "default") -> Path:
        """A kubeconfig file with a token in it."""
        return self._kubeconfig(name, {"token": token}, namespace)

    def kubeconfig_of_user(self, user: str, groups: tuple[str, ...] = (), namespace: str = "default") -> Path:
        """A kubeconfig file of a person with a certificate of their own; nothing is allowed to them yet."""
        pki = self.folder / "pki"
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={user}"
        certificates.issue(pki, user, subject)
        return self._kubeconfig(user, _certificate(pki, user), namespace)

    def _kubeconfig(self, name: str, user: Mapping[str, str], namespace: str) -> Path:
        cluster = json.loads(self.kubectl("config", "view", "--raw", "--minify", "-o", "json"))["clusters"][0]
        return _write_kubeconfig(self.folder / f"{name}.kubeconfig", name, user, cluster["cluster"], namespace)

    # --- who asked for what

    def asked(self, user: str) -> list[Asked]:
        """The requests of a user, in the order in which they were answered; of its pods, for a service account."""
        found = []
        for line in (self.folder / "audit.log").read_text().splitlines():
            if user not in line:
                continue  # most are of others: reading them all would take the time of some tests
            event = json.loads(line)
            if event["user"]["username"] == user:
                about = event.get("objectRef", {})
                what = "/".join(part for part in (about.get("resource"), about.get("subresource")) if part)
                status = event.get("responseStatus", {})
                found.append(
                    Asked(event["verb"], what, about.get("name", ""), status.get("code", 0), event["requestURI"])
                )
        return found

    # --- trouble

    def stop(self, name: str) -> None:
        """Kill one of its programs (``kube-apiserver``, ``etcd``, ``kube-controller-manager``) and wait for its end."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def start(self, name: str) -> None:
        """Start a program again, on its old port and data; an API server answers when this returns."""
        self.processes[name] = _started(self.commands[name], self.folder / f"{name}.log")
        if name == "kube-apiserver":
            _await_ready(self)


@contextmanager
def control_plane(
    programs: Mapping[str, Path], folder: Path, address: str = "127.0.0.1", flags: tuple[str, ...] = ()
) -> Iterator[ControlPlane]:
    """A fresh one, with everything of it in ``folder``; stopped at the end. Raises NotReady.

    ``address``: where the API server listens. ``flags``: of the API server; they win over ours.
    """
    pki = folder / "pki"
    certificates.make(pki, (f"IP:{address}",))
    etcd_port, peer_port, api_port, manager_port = _free_ports(4)
    url = f"https://{address}:{api_port}"
    authority = {"server": url, "certificate-authority-data": _base64(pki / "ca.crt")}
    for client in ("admin", "controller-manager", "scheduler", "proxy", "node"):
        _write_kubeconfig(folder / f"{client}.kubeconfig", client, _certificate(pki, client), authority, "default")
    etcd = f"http://127.0.0.1:{etcd_port}"
    (folder / "audit-policy.json").write_text(json.dumps(AUDIT_POLICY))
    plane = ControlPlane(
        folder=folder, url=url, kubectl_program=programs["kubectl"], kubeconfig=folder / "admin.kubeconfig"
    )
    plane.commands = {
        "etcd": [
            str(programs["etcd"]),
            f"--data-dir={folder / 'etcd'}",
            "--unsafe-no-fsync",
            "--log-level=warn",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
        ],
        "kube-apiserver": [
            str(programs["kube-apiserver"]),
            f"--etcd-servers={etcd}",
            f"--bind-address={address}",
            f"--advertise-address={address}",
            f"--secure-port={api_port}",
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            "--authorization-mode=Node,RBAC",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki / 'sa.pub'}",
            f"--service-account-signing-key-file={pki / 'sa.key'}",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--audit-policy-file={folder / 'audit-policy.json'}",
            f"--audit-log-path={folder / 'audit.log'}",
            "--audit-log-mode=blocking-strict",  # what was answered is in the log
            *flags,
        ],
        "kube-controller-manager": [
            str(programs["kube-controller-manager"]),
            f"--kubeconfig={folder / 'controller-manager.kubeconfig'}",
            f"--service-account-private-key-file={pki / 'sa.key'}",
            f"--root-ca-file={pki / 'ca.crt'}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={manager_port}",
            f"--cert-dir={folder / 'manager'}",
            "--kube-api-qps=500",  # at its default rate the first service account takes seconds
            "--kube-api-burst=1000",
            "--concurrent-job-syncs=20",
            "--concurrent-gc-syncs=20",
        ],
    }
    try:
        for name in plane.commands:
            plane.start(name)
        plane.kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=60s")
        yield plane
    finally:
        for name in ("kube-controller-manager", "kube-apiserver", "etcd"):
            if name in plane.processes:
                plane.stop(name)
        shutil.rmtree(folder / "etcd", ignore_errors=True)


def given_cluster(kubeconfig: Path, kubectl: Path, folder: Path) -> ControlPlane:
    """Somebody's cluster, which is neither started nor stopped by us."""
    return ControlPlane(folder=folder, url="", kubectl_program=kubectl, kubeconfig=kubeconfig)


def _started(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the tests: they stop it in order
            preexec_fn=_end_with_parent,  # and where they cannot any more, the kernel does
        )


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _await_ready(plane: ControlPlane) -> None:
    process = plane.processes["kube-apiserver"]
    trusted = ssl.create_default_context(cafile=str(plane.folder / "pki" / "ca.crt"))
    until = time.monotonic() + READY_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{plane.url}/readyz", timeout=5, context=trusted):
                return
        except OSError as error:
            if process.poll() is None and time.monotonic() < until:
                time.sleep(0.05)  # it tells nobody when it is ready
                continue
            log = (plane.folder / "kube-apiserver.log").read_text(errors="replace")[-3000:]
            raise NotReady(f"kube-apiserver is not ready ({error}):\n{log}") from error


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; all different."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def _certificate(pki: Path, name: str) -> dict[str, str]:
    return {
        "client-certificate-data": _base64(pki / f"{name}.crt"),
        "client-key-data": _base64(pki / f"{name}.key"),
    }


def _write_kubeconfig(
    path: Path, name: str, user: Mapping[str, str], cluster: Mapping[str, Any], namespace: str
) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": dict(cluster)}],
        "users": [{"name": name, "user": dict(user)}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": name, "namespace": namespace}}],
        "current-context": "test",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(document))
    return path


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
