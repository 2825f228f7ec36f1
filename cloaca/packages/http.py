"""Get bytes over http(s): bounded in size, time and redirects, and from allowed addresses only.

Credentials are sent over https only, and to the origin of the URL that they were given for, never to another one.
"""

from __future__ import annotations

import base64
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

from cloaca.errors import SourceError
from cloaca.packages.addresses import LOCAL, SourcePolicy

TIMEOUT = 60.0  # seconds for all of it
SILENCE = 15.0  # seconds without a byte
REDIRECTS = 5
_PIECE = 256 * 1024
_HEADERS = {"User-Agent": "cloacina", "Accept": "*/*"}


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Who we are at the source: a token, or a user and a password. Never shown."""

    token: str | None = field(default=None, repr=False)
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    hosts: frozenset[str] | None = None
    """The only hosts that may see them; None: the host of whatever URL they are used for."""

    @property
    def header(self) -> str:
        """The value of ``Authorization``."""
        if self.token is not None:
            return f"Bearer {self.token}"
        pair = f"{self.username or ''}:{self.password or ''}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a source gave."""

    data: bytes | None
    """None: what it gave before is still the newest."""
    revision: str | None = None
    """What the source calls this version of it; None: it has no word for that."""


def download(
    url: str,
    *,
    limit: int,
    credentials: Credentials | None = None,
    timeout: float = TIMEOUT,
    silence: float = SILENCE,
    trusted: ssl.SSLContext | None = None,
    policy: SourcePolicy = LOCAL,
    revision: str | None = None,
) -> Answer:
    """The bytes at ``url``, at most ``limit``. Blocks. Raises SourceError.

    ``trusted``: the authorities of certificates; None: the machine's. ``policy``: the addresses that may be connected
    to, after each redirect as well. If the environment names a proxy (``https_proxy``), that is connected to, and
    decides which addresses are reached. ``revision``: of an earlier answer; the bytes are sent only where they are
    others by now.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise SourceError(f"{url}: only http and https are fetched")
    if credentials is not None:
        _check_recipient(url, credentials)
    until = time.monotonic() + timeout
    redirects = _Redirects(url, credentials)
    opener = urllib.request.build_opener(redirects, _Plain(policy), _Secure(policy, trusted))
    request = urllib.request.Request(url, headers=_HEADERS)  # noqa: S310  # looked at above
    if credentials is not None:
        request.add_unredirected_header("Authorization", credentials.header)
    for name, value in _conditions(revision).items():
        request.add_header(name, value)
    shown = without_query(url)
    try:
        with opener.open(request, timeout=min(silence, timeout)) as answer:
            return Answer(data=_read(answer, shown, limit, until), revision=_revision(answer))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 304 and revision is not None:
            return Answer(data=None, revision=revision)
        raise SourceError(f"{shown}: {_explained(error, credentials is not None)}") from None
    except TimeoutError as error:
        raise SourceError(f"{shown}: no answer within {silence:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, TimeoutError):
            raise SourceError(f"{shown}: no answer within {silence:g} s") from error
        raise SourceError(f"{shown} cannot be fetched: {reason or type(error).__name__}") from error


_REVISIONS = (("ETag", "If-None-Match"), ("Last-Modified", "If-Modified-Since"))
_CONDITIONAL = frozenset(asked.lower() for _, asked in _REVISIONS)
_LONGEST_REVISION = 512  # characters; a longer one is not kept


def _revision(answer: http.client.HTTPResponse) -> str | None:
    for said, _ in _REVISIONS:
        value = answer.headers.get(said, "").strip()
        if value and len(value) <= _LONGEST_REVISION and value.isprintable():
            return f"{said}: {value}"
    return None


def _conditions(revision: str | None) -> dict[str, str]:
    said, _, value = (revision or "").partition(": ")
    return {asked: value for known, asked in _REVISIONS if known == said and value}


def without_query(url: str) -> str:
    """``url`` as messages show it: signed URLs carry secrets behind the question mark."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _check_recipient(url: str, credentials: Credentials) -> None:
    """Raise SourceError unless the server at ``url`` may see ``credentials``."""
    parts = urlsplit(url)
    if parts.scheme != "https":
        raise SourceError(f"{without_query(url)}: credentials (spec.secretRef) are sent over https only")
    if credentials.hosts is not None and parts.hostname not in credentials.hosts:
        listed = ", ".join(sorted(credentials.hosts)) or "none"
        raise SourceError(f"{without_query(url)}: the Secret of spec.secretRef is for these hosts only: {listed}")


def _read(answer: http.client.HTTPResponse, shown: str, limit: int, until: float) -> bytes:
    announced = answer.headers.get("Content-Length", "")
    if announced.isdigit() and int(announced) > limit:
        raise SourceError(f"{shown} is larger than the limit of {limit:,} bytes: it has {int(announced):,}")
    data = bytearray()
    while True:
        if time.monotonic() > until:
            raise SourceError(f"{shown}: not whole in time, after {len(data):,} bytes")
        piece = answer.read1(_PIECE)
        if not piece:
            break
        data += piece
        if len(data) > limit:
            raise SourceError(f"{shown} is larger than the limit of {limit:,} bytes")
    if announced.isdigit() and len(data) != int(announced):
        raise SourceError(f"{shown} broke off after {len(data):,} of {int(announced):,} bytes")
    return bytes(data)


class _PlainConnection(http.client.HTTPConnection):
    """Connects to addresses that ``policy`` allows."""

    policy: SourcePolicy
    through_proxy = False

    def connect(self) -> None:
        policy = LOCAL if self.through_proxy else self.policy
        self.sock = policy.connect(self.host, self.port, self.timeout)


class _SecureConnection(http.client.HTTPSConnection):
    """The same, over TLS."""

    policy: SourcePolicy
    trusted: ssl.SSLContext
    through_proxy = False

    def set_tunnel(self, host: str, port: int | None = None, headers: Mapping[str, str] | None = None) -> None:
        self.through_proxy = True
        super().set_tunnel(host, port, headers)

    def connect(self) -> None:
        if self.through_proxy:
            super().connect()
            return
        bare = self.policy.connect(self.host, self.port, self.timeout)
        try:
            self.sock = self.trusted.wrap_socket(bare, server_hostname=self.host)
        except BaseException:
            bare.close()
            raise


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, policy: SourcePolicy) -> None:
        super().__init__()
        self._policy = policy

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def connection(host: str, **options: Any) -> http.client.HTTPConnection:
            made = _PlainConnection(host, **options)
            made.policy, made.through_proxy = self._policy, req.has_proxy()
            return made

        return self.do_open(connection, req)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, policy: SourcePolicy, trusted: ssl.SSLContext | None) -> None:
        self._trusted = trusted or ssl.create_default_context()
        super().__init__(context=self._trusted)
        self._policy = policy

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def connection(host: str, **options: Any) -> http.client.HTTPConnection:
            made = _SecureConnection(host, context=self._trusted, **options)
            made.policy, made.trusted = self._policy, self._trusted
            return made

        return self.do_open(connection, req)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few, never from https to http, and shows credentials to their own origin only."""

    max_repeats = max_redirections = REDIRECTS + 1  # urllib's own count, which ours comes before

    def __init__(self, url: str, credentials: Credentials | None) -> None:
        self._origin = _origin(url)
        self._credentials = credentials
        self._followed = 0

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,  # noqa: ARG002  # the names are urllib's
        msg: str,  # noqa: ARG002
        headers: Message,  # noqa: ARG002
        newurl: str,
    ) -> urllib.request.Request:
        target = urljoin(req.full_url, newurl)
        self._followed += 1
        if self._followed > REDIRECTS:
            fp.close()
            raise SourceError(f"{without_query(req.full_url)}: more than {REDIRECTS} redirects")
        scheme = urlsplit(target).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            fp.close()
            raise SourceError(f"{without_query(req.full_url)} redirects from {req.type} to {scheme}: not followed")
        conditions = {name: value for name, value in req.header_items() if name.lower() in _CONDITIONAL}
        following = urllib.request.Request(target, headers=_HEADERS | conditions)  # noqa: S310  # looked at above
        if self._credentials is not None and _origin(target) == self._origin:
            following.add_unredirected_header("Authorization", self._credentials.header)
        return following


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return (parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme))


def _explained(error: urllib.error.HTTPError, known: bool) -> str:
    match error.code:
        case 401 | 403 if known:
            return f"{error.code} {error.reason}: the credentials of spec.secretRef are not accepted"
        case 401 | 403:
            return f"{error.code} {error.reason}: name a Secret with credentials in spec.secretRef"
        case 404:
            return "404: there is nothing there; check spec.source.url"
    if error.code in (301, 302, 303, 307, 308):
        return f"{error.code}: it redirects to what is not http(s): not followed"
    return f"the server answered {error.code} {error.reason}"
