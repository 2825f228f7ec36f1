"""Which addresses a source may be fetched from: a table, as a cluster has it by default and with each setting."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from cloaca.errors import SourceError
from cloaca.packages.addresses import LOCAL, SourcePolicy

STRICT = SourcePolicy()
PRIVATE = SourcePolicy(allow_private=True)
LISTED = SourcePolicy(allowed_hosts=frozenset({"packages.corp"}))
ITSELF, METADATA, NO_HOST, INSIDE = "machine itself", "link-local or metadata", "not an address of one host", "private"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("93.184.216.34", None),
        ("2606:2800:220:1:248:1893:25c8:1946", None),
        ("127.0.0.1", ITSELF),
        ("127.8.8.8", ITSELF),
        ("0.0.0.0", ITSELF),
        ("::1", ITSELF),
        ("::", ITSELF),
        ("::ffff:127.0.0.1", ITSELF),
        ("64:ff9b::7f00:1", ITSELF),
        ("2002:7f00:1::", ITSELF),
        ("169.254.169.254", METADATA),
        ("::ffff:169.254.169.254", METADATA),
        ("fe80::1", METADATA),
        ("fd00:ec2::254", METADATA),
        ("fd20:ce::254", METADATA),
        ("100.100.100.200", METADATA),
        ("168.63.129.16", METADATA),
        ("192.0.0.192", METADATA),
        ("224.0.0.1", NO_HOST),
        ("ff02::1", NO_HOST),
        ("10.96.0.1", INSIDE),
        ("172.16.5.4", INSIDE),
        ("192.168.1.1", INSIDE),
        ("100.64.0.1", INSIDE),
        ("fd12:3456::1", INSIDE),
        ("::ffff:10.0.0.1", INSIDE),
    ],
)
def test_a_cluster_refuses_what_only_its_own_machines_can_reach(address: str, said: str | None) -> None:
    refused = STRICT.refusal("source.example", ip_address(address))
    assert refused is None if said is None else said in (refused or "")


@pytest.mark.parametrize("address", ["10.96.0.1", "192.168.1.1", "100.64.0.1", "fd12:3456::1"])
@pytest.mark.parametrize(
    ("policy", "host", "allowed"),
    [
        pytest.param(PRIVATE, "source.example", True, id="private ranges are allowed"),
        pytest.param(LISTED, "packages.corp", True, id="the host is listed"),
        pytest.param(LISTED, "Packages.Corp.", True, id="the host is listed, written otherwise"),
        pytest.param(LISTED, "evil.packages.corp", False, id="another host"),
    ],
)
def test_private_addresses_need_a_setting(policy: SourcePolicy, host: str, allowed: bool, address: str) -> None:
    assert (policy.refusal(host, ip_address(address)) is None) is allowed


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "fd00:ec2::254", "100.100.100.200"])
@pytest.mark.parametrize("policy", [PRIVATE, LISTED], ids=["private ranges are allowed", "the host is listed"])
def test_no_setting_opens_the_machine_itself_and_the_metadata_service(policy: SourcePolicy, address: str) -> None:
    assert policy.refusal("packages.corp", ip_address(address)) is not None


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.1.1"])
def test_on_a_persons_own_machine_every_address_is_allowed(address: str) -> None:
    assert LOCAL.refusal("localhost", ip_address(address)) is None


@pytest.mark.parametrize(
    ("policy", "url", "pinned", "allowed"),
    [
        pytest.param(STRICT, "https://h/p.cloacina", False, True, id="https"),
        pytest.param(STRICT, "http://h/p.cloacina", True, True, id="http, and the digest is pinned"),
        pytest.param(STRICT, "http://h/p.cloacina", False, False, id="http"),
        pytest.param(LOCAL, "http://h/p.cloacina", False, True, id="http, on a person's own machine"),
    ],
)
def test_plain_http_needs_a_pinned_digest(policy: SourcePolicy, url: str, pinned: bool, allowed: bool) -> None:
    if allowed:
        policy.check_url(url, pinned=pinned)
    else:
        with pytest.raises(SourceError, match=r"use https, or pin spec\.digest"):
            policy.check_url(url, pinned=pinned)
