"""Decide which network addresses a source may be reached at, and connect to one of those only.

The rules guard against server-side request forgery: whoever may declare a package says which URL is fetched, and the
process that fetches can reach addresses that this person cannot, such as a cloud's metadata service.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from cloaca.errors import SourceError

Address = IPv4Address | IPv6Address

METADATA = frozenset(
    ip_address(address)
    for address in (
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure's wire server
        "192.0.0.192",  # Oracle Cloud (classic)
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google Cloud
    )
)
"""Addresses at which clouds tell a machine's credentials, beside the link-local 169.254.169.254 of most of them."""
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


@dataclass(frozen=True, kw_only=True)
class SourcePolicy:
    """What sources may be fetched from."""

    local: bool = False
    """Whether every address is allowed, this machine's own included, and plain http too. For a person's own machine."""
    allow_private: bool = False
    """Whether private ranges (RFC 1918, RFC 4193, RFC 6598) are allowed."""
    allowed_hosts: frozenset[str] = frozenset()
    """Hosts, as URLs name them, that may have private addresses though ``allow_private`` is false."""

    def check_url(self, url: str, *, pinned: bool) -> None:
        """Raise SourceError if ``url`` must not be fetched at all. ``pinned``: the digest of what it gives is known."""
        if urlsplit(url).scheme == "http" and not pinned and not self.local:
            raise SourceError(
                "spec.source.url: over http anybody on the way can change the archive: use https, or pin spec.digest"
            )

    def refusal(self, host: str, address: Address) -> str | None:
        """Why ``host`` must not be reached at ``address``; None: it may."""
        if self.local:
            return None
        meant = _embedded(address)
        if meant.is_loopback or meant.is_unspecified:
            return "an address of this machine itself"
        if meant.is_link_local or meant in METADATA:
            return "a link-local or metadata address"
        if meant.is_multicast or (meant.is_reserved and not meant.is_private):
            return "not an address of one host"
        if meant.is_global or self.allow_private or host.lower().rstrip(".") in self.allowed_hosts:
            return None
        return "a private address, which needs sources.allowPrivate or an entry in sources.allowedHosts"

    def connect(self, host: str, port: int, timeout: float | None) -> socket.socket:
        """A connection to ``host`` at an address that is allowed: what was checked is what is used, so that a name
        cannot be changed in between. Raises SourceError if no address is allowed, OSError if none answers."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        allowed, refused = [], []
        for family, kind, protocol, _, where in found:
            address = ip_address(str(where[0]).partition("%")[0])
            why = self.refusal(host, address)
            if why is None:
                allowed.append((family, kind, protocol, where))
            else:
                refused.append(f"{address} is {why}")
        if not allowed:
            raise SourceError(f"{host} may not be fetched from: {'; '.join(dict.fromkeys(refused))}")
        return _first(allowed, timeout)


LOCAL = SourcePolicy(local=True)
"""Everything is allowed: the daemon on a person's own machine, which may read local files as well."""


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = None if address.teredo is None else address.teredo[1]
    return address.ipv4_mapped or address.sixtofour or teredo or address


def _first(places: Iterable[tuple[int, int, int, tuple[object, ...]]], timeout: float | None) -> socket.socket:
    """A connection to the first of ``places`` that answers."""
    failed: OSError | None = None
    for family, kind, protocol, where in places:
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(timeout)
            made.connect(where)
        except OSError as error:
            made.close()
            failed = error
        else:
            return made
    raise failed or OSError("the name has no address")
