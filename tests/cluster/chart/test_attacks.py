"""What a review of the cluster tried and got through with, each on a real API server: refused now, with a sentence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cluster.chart.hostile import MERGE, Scene, run, sourced, trigger, unique
from cluster.kubectl import Refused

POLICY = "ValidatingAdmissionPolicy"
# What a review tried that reached another tenant: its number there, who does what; what refuses it.
ATTACKS: dict[str, tuple[str, Callable[[Scene], object]]] = {
    "S6 a run with an account of its package's own submits a run of another package by hand": (
        POLICY,
        lambda s: s.own("alpha-1-own01").create(run(unique("stolen"), "alpha-b", s.namespace)),
    ),
    "S6 it submits one for a trigger": (
        POLICY,
        lambda s: s.own("alpha-1-own01").create(run(unique("stolen"), "alpha-b", s.namespace, "alpha-b-inbox")),
    ),
    "S6 it submits one of its own package": (
        POLICY,
        lambda s: s.own("alpha-1-own01").create(run(unique("stolen"), "alpha", s.namespace, "alpha-inbox")),
    ),
    "S6 a poller with such an account submits a run of another package": (
        POLICY,
        lambda s: s.own("alpha-poller-7d9f8b6c5d-own01").create(
            run(unique("stolen"), "alpha-b", s.namespace, "alpha-b-inbox")
        ),
    ),
    "S6 such a poller submits a run of its package without a trigger": (
        POLICY,
        lambda s: s.own("alpha-poller-7d9f8b6c5d-own01").create(run(unique("stolen"), "alpha", s.namespace)),
    ),
    "S6 such an account submits with a token of no pod": (
        POLICY,
        lambda s: s.unbound("own-of-both").create(run(unique("stolen"), "alpha", s.namespace)),
    ),
    "S6 such a poller writes the status of another package's trigger": (
        POLICY,
        lambda s: s.own("alpha-poller-7d9f8b6c5d-own01").patch_status(
            "ctrig", "alpha-b-inbox", s.namespace, {"sequence": 7}
        ),
    ),
    "S6 such a run writes the status of its package's trigger": (
        POLICY,
        lambda s: s.own("alpha-1-own01").patch_status("ctrig", "alpha-inbox", s.namespace, {"sequence": 7}),
    ),
    "S6 such a run writes the status of another run": (
        POLICY,
        lambda s: s.own("alpha-1-own01").patch_status("crun", "alpha-b-1", s.namespace, {"phase": "Completed"}),
    ),
    "S6 an account of another namespace submits a run for a trigger": (
        POLICY,
        lambda s: s.gitops().create(run(unique("applied"), "alpha", s.namespace, fired_by="alpha-inbox")),
    ),
    "S6 an account of another namespace writes the status of a trigger": (
        POLICY,
        lambda s: s.gitops().patch_status("ctrig", "alpha-inbox", s.namespace, {"sequence": 7}),
    ),
    **{
        f"S7 a person names a run so that its pod is taken for {what}": (
            "must not end in -poller-, -inspect- or -source-",
            lambda s, name=name: s.admin.create(run(name, "alpha", s.namespace)),  # type: ignore[misc]  # by default
        )
        for what, name in (
            ("a poller", "alpha-b-poller-7d9f8b6c5d"),
            ("a poller, with a short hash", "alpha-b-poller-a"),
            ("an inspection", "alpha-b-inspect-abcdefgh"),
            ("one that watches a source", "alpha-b-source-7d9f8b6c5d"),
        )
    },
    "S7 a poller submits a run of such a name": (
        "must not end in -poller-, -inspect- or -source-",
        lambda s: s.poller().create(run("alpha-b-poller-abc", "alpha", s.namespace, fired_by="alpha-inbox")),
    ),
    "S7 a person names a trigger so that its runs would be named so": (
        "must not end in -poller, -inspect or -source",
        lambda s: s.admin.create(trigger("alpha-b-poller", "alpha", s.namespace)),
    ),
    "S8 a person asks for signatures, which nobody checks": (
        "signatures are not checked by this version: remove spec.verify",
        lambda s: s.admin.create(
            sourced(unique("signed"), s.namespace, "https://a.example/b", verify={"publicKeys": ["-----BEGIN"]})
        ),
    ),
    "S8 a person adds a key to a package": (
        "signatures are not checked by this version: remove spec.verify",
        lambda s: s.admin(
            "patch", "cpkg", "alpha", "-n", s.namespace, MERGE, "-p", '{"spec": {"verify": {"publicKeys": ["a"]}}}'
        ),
    ),
    "S14 a person fetches an archive over http without its digest": (
        "over http anybody on the way can change the archive: use https, or set spec.digest",
        lambda s: s.admin.create(sourced(unique("plain"), s.namespace, "http://packages.example.com/a.cloacina")),
    ),
    **{
        f"S8 a person names a source of {scheme}": (
            "s3, gs, az and oci sources are not supported by this version",
            lambda s, scheme=scheme: s.admin.create(  # type: ignore[misc]  # by default
                sourced(unique("kept"), s.namespace, f"{scheme}://bucket/a.cloacina")
            ),
        )
        for scheme in ("s3", "gs", "az", "oci")
    },
}


@pytest.mark.parametrize("what", ATTACKS)
def test_an_attack_is_refused(scene: Scene, what: str) -> None:
    reason, attempt = ATTACKS[what]
    with pytest.raises(Refused) as refused:
        attempt(scene)
    assert reason in str(refused.value)
