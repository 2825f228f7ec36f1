"""Make the keys and certificates of a control plane with openssl. One authority for each, gone with its folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SERVING = ("DNS:localhost", "DNS:kubernetes.default.svc", "IP:127.0.0.1", "IP:10.96.0.1")
_CLIENTS = {
    "admin": "/O=system:masters/CN=admin",
    "controller-manager": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "proxy": "/CN=system:kube-proxy",
    "kubelet-client": "/O=system:masters/CN=kube-apiserver-kubelet-client",
    "node": "/O=system:nodes/CN=system:node:node1",
}


def make(folder: Path, names: tuple[str, ...] = ()) -> None:
    """``NAME.key`` and ``NAME.crt`` for the authority (ca), the API server and each client; ``sa.key``, ``sa.pub``.

    ``names``: further names and addresses of the API server, such as ``IP:10.0.0.1``.
    """
    folder.mkdir(parents=True, mode=0o700)
    _key(folder, "ca")
    extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"]
    added = [part for extension in extensions for part in ("-addext", extension)]
    _openssl(folder, "req", "-x509", "-new", "-key", "ca.key", "-sha256", "-days", "30", "-subj", "/CN=test-ca", *added,
             "-out", "ca.crt")  # fmt: skip
    served = f"\nsubjectAltName={','.join((*_SERVING, *names))}"
    _issue(folder, "apiserver", "/CN=kube-apiserver", f"extendedKeyUsage=serverAuth{served}")
    for name, subject in _CLIENTS.items():
        issue(folder, name, subject)
    _key(folder, "sa")
    _openssl(folder, "ec", "-in", "sa.key", "-pubout", "-out", "sa.pub")


def issue(folder: Path, name: str, subject: str) -> None:
    """A client's certificate: ``subject`` as ``/O=group/CN=user``."""
    _issue(folder, name, subject, "extendedKeyUsage=clientAuth")


def _issue(folder: Path, name: str, subject: str, usage: str) -> None:
    _key(folder, name)
    extensions = f"basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\n{usage}\n"
    (folder / f"{name}.ext").write_text(extensions)
    _openssl(folder, "req", "-new", "-key", f"{name}.key", "-subj", subject, "-out", f"{name}.csr")
    _openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
             "-days", "30", "-sha256", "-extfile", f"{name}.ext", "-out", f"{name}.crt")  # fmt: skip


def _key(folder: Path, name: str) -> None:
    _openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
    (folder / f"{name}.key").chmod(0o600)


def _openssl(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {' '.join(arguments[:2])} failed: {done.stderr}")
