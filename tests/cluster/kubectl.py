"""Speak to an API server as somebody: through kubectl, with one kubeconfig and perhaps a token. Knows no test."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

PLURALS = {"cpkg": "cloacinapackages", "ctrig": "triggers", "crun": "workflowruns"}


class Refused(Exception):
    """The API server said no; the text is what it said."""


@dataclass(frozen=True, kw_only=True)
class Kubectl:
    """One identity at one API server."""

    program: Path
    kubeconfig: Path
    token: str | None = None  # None: as the kubeconfig says

    def __call__(self, *arguments: str, document: Any = None) -> str:
        """What kubectl prints; ``document`` goes to its standard input as JSON. Raises Refused."""
        identity = [] if self.token is None else ["--token", self.token]
        done = subprocess.run(
            [str(self.program), f"--kubeconfig={self.kubeconfig}", *identity, *arguments],
            input=None if document is None else json.dumps(document),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            raise Refused(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """The object or list that ``kubectl get`` gives."""
        return json.loads(self("get", "-o", "json", *arguments))

    def create(self, document: dict[str, Any]) -> Any:
        """Create one object; gives it as stored."""
        return json.loads(self("create", "-o", "json", "-f", "-", document=document))

    def patch_status(self, kind: str, name: str, namespace: str, status: dict[str, Any], **beside: Any) -> str:
        """Merge ``status`` into the status of an object. With a token by HTTP: kubectl would have to read it before.
        ``beside``: what a writer puts into the same body, though it is no status."""
        patch = json.dumps({**beside, "status": status})
        if self.token is not None:
            return self._patched(f"{PLURALS[kind]}/{name}/status", namespace, patch)
        return self("patch", kind, name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)

    def _patched(self, path: str, namespace: str, patch: str) -> str:
        cluster = json.loads(self("config", "view", "--raw", "--minify", "-o", "json"))["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        request = urllib.request.Request(
            f"{cluster['server']}/apis/cloacina.io/v1alpha1/namespaces/{namespace}/{path}",
            data=patch.encode(),
            method="PATCH",
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/merge-patch+json"},
        )
        trusted = ssl.create_default_context(cadata=authority)
        try:
            with urllib.request.urlopen(request, timeout=120, context=trusted) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            raise Refused(f"PATCH {path}: {json.loads(error.read())['message']}") from error

    def anonymous(self, folder: Path) -> Kubectl:
        """The same server without any identity: what a token is then given to."""
        config = json.loads(self("config", "view", "--raw", "-o", "json"))
        for user in config["users"]:
            user["user"] = {}
        path = folder / "anonymous.kubeconfig"
        path.write_text(json.dumps(config))
        return replace(self, kubeconfig=path)

    def pod_identity(self, anonymous: Kubectl, namespace: str, account: str, pod: str) -> Kubectl:
        """As the process in ``pod`` that uses its mounted token; the pod need not run, but is made where it is not."""
        container = {
            "name": "main",
            "image": "none.invalid/none:0",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        spec = {
            "serviceAccountName": account,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "nodeSelector": {"cloacina.io/nowhere": ""},
            "containers": [container],
        }
        if not self("get", "pod", pod, "-n", namespace, "--ignore-not-found", "-o", "name"):
            metadata = {"name": pod, "namespace": namespace}
            self.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod}", "--duration=1h")
        token = self("create", "token", account, "-n", namespace, *bound)
        return replace(anonymous, token=token.strip())
