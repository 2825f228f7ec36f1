"""Talk to an API server: one pool of connections, JSON in and out, errors in our words. Decides nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from cloaca.errors import AlreadyExists, CloacaError, Conflict, Invalid, NotFound, StoreUnavailable
from cloacina_operator.executors.watched import Expired, Object

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_LONGEST_EVENT = 8 * 1024 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)
_WATCHING = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=330)  # the server ends a watch before that
_BACKOFFS = (0.1, 0.5, 1.0)  # seconds, where the server asks to come back later
_GOODBYE = 0.1  # seconds that TLS connections get to end; aiohttp closes them behind its own close()


class AccessError(CloacaError):
    """No API server could be found in the environment, or what is said of it cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where an API server is, and who we are to it."""

    server: str
    tls: ssl.SSLContext | None  # None: plain HTTP
    token_file: Path | None = None  # read again for each request: the kubelet renews it
    token: str | None = None
    namespace: str = "default"


def find_access(environment: Mapping[str, str]) -> Access:
    """``$KUBECONFIG``, else the pod's service account, else ``~/.kube/config``. Raises AccessError."""
    given = environment.get("KUBECONFIG")
    if given:
        return _from_kubeconfig(Path(given))
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if host and (_ACCOUNT / "token").exists():
        host = f"[{host}]" if ":" in host else host
        return Access(
            server=f"https://{host}:{port}",
            tls=ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt")),
            token_file=_ACCOUNT / "token",
            namespace=(_ACCOUNT / "namespace").read_text().strip(),
        )
    usual = Path.home() / ".kube" / "config"
    if usual.exists():
        return _from_kubeconfig(usual)
    raise AccessError("no cluster found: set KUBECONFIG, or run in a pod with a service account token")


def _from_kubeconfig(path: Path) -> Access:
    try:
        config = yaml.safe_load(path.read_text())
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], context["cluster"])["cluster"]
        user = _named(config["users"], context["user"])["user"]
        tls = ssl.create_default_context(
            cafile=cluster.get("certificate-authority"), cadata=_decoded(cluster.get("certificate-authority-data"))
        )
        if cluster.get("insecure-skip-tls-verify"):
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        _load_client(tls, user)
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise AccessError(f"the kubeconfig {path} cannot be used: {error!r}") from error
    if "exec" in user or "auth-provider" in user:
        raise AccessError(f"the kubeconfig {path} needs a program to log in; use one with a token or certificate")
    plain = str(cluster["server"]).startswith("http:")
    return Access(
        server=str(cluster["server"]).rstrip("/"),
        tls=None if plain else tls,
        token=user.get("token"),
        token_file=Path(user["tokenFile"]) if "tokenFile" in user else None,
        namespace=context.get("namespace", "default"),
    )


def _load_client(tls: ssl.SSLContext, user: Mapping[str, Any]) -> None:
    if "client-certificate" in user:
        tls.load_cert_chain(user["client-certificate"], user["client-key"])
    elif "client-certificate-data" in user:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # the ssl module reads files only
            file.write((_decoded(user["client-certificate-data"]) or "") + (_decoded(user["client-key-data"]) or ""))
            file.flush()
            tls.load_cert_chain(file.name)


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _decoded(data: str | None) -> str | None:
    return None if data is None else base64.b64decode(data).decode()


class Api:
    """One API server. Belongs to one event loop; close it."""

    def __init__(self, access: Access, *, user_agent: str = "cloacina-operator") -> None:
        self.access = access
        connector = aiohttp.TCPConnector(limit=50, ssl=access.tls if access.tls is not None else True)
        self._session = aiohttp.ClientSession(connector=connector, headers={"User-Agent": user_agent})
        self.requests: Counter[tuple[str, str]] = Counter()
        """(verb, resource) → how often it was asked."""

    async def request(
        self, method: str, path: str, *, body: Object | None = None, params: Mapping[str, str] | None = None
    ) -> Object:
        """The answer, as JSON. Where the server asks to come back later, it is asked a few times.

        Raises NotFound, AlreadyExists, Conflict, Invalid (what is written breaks a rule, or may not be), and
        StoreUnavailable.
        """
        for pause in (*_BACKOFFS, None):
            self.requests[(method, resource_of(path))] += 1
            try:
                async with self._session.request(
                    method,
                    self.access.server + path,
                    params=params,
                    json=body,
                    headers=self._headers(),
                    timeout=_TIMEOUT,
                ) as response:
                    answer: Object = await _json(response)
                    status = response.status
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
                raise StoreUnavailable(f"{method} {path}: the API server is away: {error!r}") from error
            if status < 400:
                return answer
            if status == 429 and pause is not None:
                await asyncio.sleep(pause)
                continue
            raise _error(method, path, status, answer)
        raise AssertionError("the last try returns or raises")

    async def watch(self, path: str, params: Mapping[str, str]) -> AsyncGenerator[Object, None]:
        """The events, until the server ends the watch. Raises Expired and StoreUnavailable."""
        self.requests[("WATCH", resource_of(path))] += 1
        try:
            async with self._session.get(
                self.access.server + path,
                params=params,
                headers=self._headers(),
                timeout=_WATCHING,
                read_bufsize=_LONGEST_EVENT,
            ) as response:
                if response.status == 410:
                    raise Expired
                if response.status >= 400:
                    raise _error("WATCH", path, response.status, await _json(response))
                async for line in _lines(response):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        if event["object"].get("code") == 410:
                            raise Expired
                        raise _error("WATCH", path, int(event["object"].get("code", 500)), event["object"])
                    yield event
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise StoreUnavailable(f"watching {path}: the API server is away: {error!r}") from error

    async def close(self) -> None:
        """Let go of every connection."""
        await self._session.close()
        await asyncio.sleep(_GOODBYE)

    def _headers(self) -> dict[str, str]:
        token = self.access.token
        if self.access.token_file is not None:
            token = self.access.token_file.read_text().strip()
        return {} if token is None else {"Authorization": f"Bearer {token}"}


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    pending = b""
    async for data in response.content.iter_any():
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            if line:
                yield line


async def _json(response: aiohttp.ClientResponse) -> Object:
    data = await response.read()
    try:
        answer = json.loads(data or b"{}")
    except ValueError:
        return {"message": data[:500].decode(errors="replace")}
    return answer if isinstance(answer, dict) else {"message": str(answer)}


def _error(method: str, path: str, status: int, answer: Object) -> CloacaError:
    said = str(answer.get("message") or f"HTTP {status}")
    reason = answer.get("reason")
    if status == 404:
        return NotFound(said)
    if status == 409:
        return AlreadyExists(said) if reason == "AlreadyExists" else Conflict(said)
    if status in (400, 413, 422):
        return Invalid(said)
    if status == 403:
        return Forbidden(said)
    return StoreUnavailable(f"{method} {path}: {said}")


class Forbidden(Invalid):
    """The operator may not do that, or a rule of the namespace refuses it."""


def resource_of(path: str) -> str:
    """The plural in a path, for counting.

    >>> resource_of("/apis/batch/v1/namespaces/team/jobs/run-1")
    'jobs'
    """
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    return "/".join((rest[0], rest[2])) if len(rest) > 2 else rest[0] if rest else path
