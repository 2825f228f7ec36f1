"""Find the API server and who we are there: a kubeconfig, or what every pod is given. Speaks to no server."""

from __future__ import annotations

import base64
import json
import os
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from cloaca.authoring.value import Value
from cloaca.errors import StoreUnavailable
from cloaca.resources.ref import DEFAULT_NAMESPACE

SCHEME = "kubernetes:"
POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_SECONDS = 60.0  # a pod's token is renewed in its file long before it expires
PLUGIN_SECONDS = 60.0

_FORM = "kubernetes://[/path/of/kubeconfig][?context=…&namespace=…&cached=true[&package=…]]"
_OPTIONS = ("context", "namespace", "cached", "package")


class KubernetesUrl(Value):
    """What a URL asks for."""

    kubeconfig: Path | None = None  # None: $KUBECONFIG, else a pod's own account, else ~/.kube/config
    context: str | None = None  # None: the kubeconfig's current one
    namespaces: tuple[str, ...] = ()  # the only ones that are looked at; empty: all
    cached: bool = False  # whether reads come from memory, which a watch feeds
    package: str | None = None  # the only one whose objects are kept in memory and told of; None: those of all


class Server(Value):
    """An API server, and who we are there."""

    url: str
    namespace: str  # of the context or the pod
    tls: ssl.SSLContext | None  # None: plain HTTP
    token: Callable[[], str | None]
    slow_token: bool = False  # whether a program is run for it


def parse_url(url: str) -> KubernetesUrl:
    """What ``url`` means. Raises StoreUnavailable, which says what is accepted."""
    path, _, query = url.removeprefix(SCHEME).removeprefix("//").partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    unknown = [name for name in given if name not in _OPTIONS]
    if unknown or given.get("cached", "false") not in ("true", "false"):
        raise StoreUnavailable(f"{url!r}: the option {', '.join(unknown) or 'cached'} is not known; write {_FORM}")
    if given.get("package") and given.get("cached") != "true":
        raise StoreUnavailable(f"{url!r}: package says what is kept in memory, so it needs cached=true")
    return KubernetesUrl(
        kubeconfig=Path(unquote(path)).expanduser() if path else None,
        context=given.get("context") or None,
        namespaces=tuple(name for name in given.get("namespace", "").split(",") if name),
        cached=given.get("cached") == "true",
        package=given.get("package") or None,
    )


def find_server(wanted: KubernetesUrl, environment: Mapping[str, str], pod: Path = POD) -> Server:
    """The API server of ``wanted``. Raises StoreUnavailable."""
    named = [Path(path) for path in environment.get("KUBECONFIG", "").split(os.pathsep) if path]
    if wanted.kubeconfig is not None:
        named = [wanted.kubeconfig]
    in_pod = (pod / "token").exists() and "KUBERNETES_SERVICE_HOST" in environment
    if not named and wanted.context is None and in_pod:
        return _of_pod(environment, pod)
    from cloaca.home import user_home  # a pod has its account, and does not need it

    home = user_home(environment)
    if not named and home is None:
        raise StoreUnavailable(
            "no kubeconfig is named, and the user's home directory, where one could be, is not known: name one with "
            "$KUBECONFIG or --kubeconfig"
        )
    return _of_kubeconfig(named or [Path(home or "/") / ".kube" / "config"], wanted.context)


def _of_pod(environment: Mapping[str, str], pod: Path) -> Server:
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    namespace = pod / "namespace"
    return Server(
        url=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        namespace=namespace.read_text().strip() if namespace.exists() else DEFAULT_NAMESPACE,
        tls=ssl.create_default_context(cafile=str(pod / "ca.crt")),
        token=_TokenFile(pod / "token"),
    )


def _of_kubeconfig(paths: Sequence[Path], context: str | None) -> Server:
    """Of several files, as kubectl has it: what an earlier one says holds, and those that are missing are skipped."""
    there = [path for path in paths if path.exists()] or paths[:1]
    documents = {path: _document(path) for path in there}
    current = (document.get("current-context") for document in documents.values())
    chosen = context or next((name for name in current if name), None)
    if not chosen:
        listed = ", ".join(map(str, there))
        raise StoreUnavailable(f"{listed} has no current-context: choose one with `kubectl config use-context`")
    _, found = _named(documents, "contexts", chosen, "context")
    base, cluster = _named(documents, "clusters", found.get("cluster"), "cluster")
    user_path, user = _named(documents, "users", found["user"], "user") if found.get("user") else (base, {})
    url = str(cluster.get("server", "")).rstrip("/")
    return Server(
        url=url,
        namespace=found.get("namespace") or DEFAULT_NAMESPACE,
        tls=_tls(cluster, base.parent, user, user_path.parent) if url.startswith("https:") else None,
        token=_token(user, user_path),
        slow_token=bool(user.get("exec")),
    )


def _document(path: Path) -> Mapping[str, Any]:
    from cloaca.resources.plain import read  # a pod has no kubeconfig, and need not load a reader of YAML

    try:
        config = next(iter(read(path.read_text(encoding="utf-8"))), None)
    except (OSError, UnicodeDecodeError) as error:
        raise StoreUnavailable(
            f"the kubeconfig {path} cannot be read: {error}: name one with $KUBECONFIG or in the URL, {_FORM}"
        ) from error
    document = None if config is None or config.faults else config.value
    if not isinstance(document, dict):
        raise StoreUnavailable(f"{path} is no kubeconfig: it must be one YAML document, an object")
    return document


def _named(
    documents: Mapping[Path, Mapping[str, Any]], group: str, name: Any, entry: str
) -> tuple[Path, Mapping[str, Any]]:
    """(file that says it, what it says). Raises StoreUnavailable, which says what there is."""
    known: list[str] = []
    for path, document in documents.items():
        for one in document.get(group) or ():
            if isinstance(one, dict) and one.get("name") == name:
                return path, one.get(entry) or {}
            known += [str(one.get("name"))] if isinstance(one, dict) else []
    listed = ", ".join(map(str, documents))
    raise StoreUnavailable(f"{listed}: {group} has no {name!r}, but {', '.join(known) or 'none at all'}")


def _tls(cluster: Mapping[str, Any], base: Path, user: Mapping[str, Any], user_base: Path) -> ssl.SSLContext:
    authority = _bytes(cluster, "certificate-authority", base)
    try:
        context = ssl.create_default_context(cadata=None if authority is None else authority.decode())
        if cluster.get("insecure-skip-tls-verify"):  # the person's own kubeconfig says so
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        certificate, key = _bytes(user, "client-certificate", user_base), _bytes(user, "client-key", user_base)
        if certificate is not None and key is not None:
            from tempfile import NamedTemporaryFile  # no pod needs it

            with NamedTemporaryFile() as file:  # ssl reads files only; this one is ours alone and gone at once
                file.write(certificate + b"\n" + key)
                file.flush()
                context.load_cert_chain(file.name)
    except StoreUnavailable:
        raise
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise StoreUnavailable(f"the certificates of the kubeconfig in {base} cannot be used: {error}") from error
    return context


def _bytes(entry: Mapping[str, Any], name: str, base: Path) -> bytes | None:
    """The value of ``NAME-data``, or of the file that ``NAME`` names; None: neither is there."""
    if entry.get(f"{name}-data"):
        return base64.b64decode(entry[f"{name}-data"])
    if not entry.get(name):
        return None
    path = base / str(entry[name])
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreUnavailable(f"{path}, which the kubeconfig names, cannot be read: {error}") from error


def _token(user: Mapping[str, Any], path: Path) -> Callable[[], str | None]:
    if user.get("exec"):
        return _Plugin(user["exec"], path)
    if user.get("tokenFile"):
        return _TokenFile(path.parent / user["tokenFile"])
    token = user.get("token")
    return lambda: token


class _TokenFile:
    """A token that somebody else renews in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = ""
        self._until = 0.0

    def __call__(self) -> str:
        if time.monotonic() >= self._until:
            try:
                self._token = self._path.read_text().strip()
            except OSError as error:
                raise StoreUnavailable(f"the token {self._path} cannot be read: {error.strerror or error}") from error
            self._until = time.monotonic() + TOKEN_SECONDS
        return self._token


class _Plugin:
    """A token that a program gives, as clouds have it in kubeconfigs. Runs it again when the token has expired."""

    def __init__(self, entry: Mapping[str, Any], path: Path) -> None:
        self._entry = entry
        self._path = path
        self._token: str | None = None
        self._until = 0.0  # in seconds since the epoch

    def __call__(self) -> str | None:
        if time.time() < self._until:
            return self._token
        import subprocess  # no pod needs it

        entry = self._entry
        environment = {**os.environ, **{pair["name"]: pair["value"] for pair in entry.get("env") or ()}}
        asked = {"apiVersion": entry.get("apiVersion"), "kind": "ExecCredential", "spec": {"interactive": False}}
        environment["KUBERNETES_EXEC_INFO"] = json.dumps(asked)
        command = [str(entry.get("command")), *(str(argument) for argument in entry.get("args") or ())]
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=PLUGIN_SECONDS, check=True
            )
            status = json.loads(done.stdout)["status"]
        except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
            said = (getattr(error, "stderr", "") or "").strip()
            raise StoreUnavailable(f"{command[0]}, which {self._path} names, gave no token: {said or error}") from error
        expires = status.get("expirationTimestamp")
        self._until = time.time() + 600 if expires is None else _epoch(expires) - 30
        self._token = status.get("token")
        return self._token


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
