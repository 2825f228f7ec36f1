"""What the code of a package can do with the tokens of its pods: its own work, and nothing else."""

from __future__ import annotations

import base64
import itertools
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cluster.kubectl import Kubectl, Refused

from cloaca.store.kubernetes.archives import package_parts

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


@pytest.fixture(scope="module")
def scene(installed: Kubectl, package_namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    admin, namespace = installed, package_namespace
    for name in ("alpha", "alpha-b"):
        admin.create(package(name, namespace))
        admin.create(trigger(f"{name}-inbox", name, namespace))
        admin.create(run(f"{name}-1", name, namespace))
    admin("create", "secret", "generic", "password", "-n", namespace, "--from-literal=word=hidden")
    admin("create", "serviceaccount", "own-of-both", "-n", namespace)
    admin("create", "serviceaccount", "applier", "-n", "default")
    for role, account in (
        ("poller", f"{namespace}:own-of-both"),
        ("run", f"{namespace}:own-of-both"),
        ("poller", "default:applier"),
    ):
        binding = f"{account.replace(':', '-')}-{role}"
        roles = (f"--clusterrole=cloacina-{role}", f"--serviceaccount={account}")
        admin("create", "rolebinding", binding, "-n", namespace, *roles)
    anonymous = admin.anonymous(tmp_path_factory.mktemp("kubeconfig"))
    return Scene(admin=admin, anonymous=anonymous, namespace=namespace)


def unique(prefix: str) -> str:
    return f"{prefix}-t{next(COUNTER)}"


def spec_of_a_pod() -> dict[str, Any]:
    return {"containers": [{"name": "main", "image": "none.invalid/none:0"}]}


def part(owner: str, name: str, namespace: str, **changes: Any) -> dict[str, Any]:
    """A part of an archive of package ``owner``, as an inspection publishes it."""
    (made,) = package_parts(owner, f"uid-of-{owner}", namespace, os.urandom(8))
    made["metadata"]["name"] = name
    return made | changes


def _inspection(s: Scene, package: str = "alpha", account: str = "cloacina-inspection") -> Kubectl:
    return s.pod(f"{package}-inspect-abcdefgh-x7k2p", account)


def part_name(package: str = "alpha") -> str:
    """One that nothing has yet."""
    return f"{package}-{base64.b32encode(os.urandom(8)).decode().lower()[:12]}-000"


PART = b"x" * (900 * 1024)

ALLOWED: dict[str, Callable[[Scene], object]] = {
    "a poller submits a run of its package for a trigger": lambda s: s.poller().create(
        run(unique("alpha"), "alpha", s.namespace, fired_by="alpha-inbox")
    ),
    "a poller writes the status of its package's trigger": lambda s: s.poller().patch_status(
        "ctrig", "alpha-inbox", s.namespace, {"sequence": 1}
    ),
    "a poller reads packages, triggers and runs": lambda s: s.poller().get("cpkg,ctrig,crun", "-n", s.namespace),
    "a run's process writes the status of its run": lambda s: s.process().patch_status(
        "crun", "alpha-1", s.namespace, {"phase": "Running"}
    ),
    "a run's process reads its run": lambda s: s.process().get("crun", "alpha-1", "-n", s.namespace),
    "an inspection publishes a part of an archive of its package": lambda s: _inspection(s).create(
        part("alpha", part_name(), s.namespace, binaryData={"part": base64.b64encode(PART).decode()})
    ),
    "an inspection publishes the manifest of an archive": lambda s: _inspection(s).create(
        part("alpha", f"{part_name()[:-4]}-manifest", s.namespace)
    ),
    "a person makes a ConfigMap of any name": lambda s: s.admin.create(part("alpha", part_name(), s.namespace)),
    "a person submits a run by hand": lambda s: s.admin.create(run(unique("hand"), "alpha", s.namespace)),
    "an account of another namespace, such as of a GitOps tool, submits a run by hand": lambda s: s.gitops().create(
        run(unique("applied"), "alpha", s.namespace)
    ),
    "a poller with an account of its package's own submits a run for a trigger": lambda s: s.own(
        "alpha-poller-7d9f8b6c5d-own01"
    ).create(run(unique("alpha"), "alpha", s.namespace, fired_by="alpha-inbox")),
    "a run with an account of its package's own writes its status": lambda s: s.own("alpha-1-own01").patch_status(
        "crun", "alpha-1", s.namespace, {"message": "mine"}
    ),
    "a person pins an archive that is fetched over http": lambda s: s.admin.create(
        sourced(unique("pinned"), s.namespace, "http://packages.example.com/a.cloacina", digest=DIGEST)
    ),
    "a person repairs a status by hand": lambda s: s.admin.patch_status(
        "crun", "alpha-b-1", s.namespace, {"message": "repaired"}
    ),
}


@pytest.mark.parametrize("what", ALLOWED)
def test_allowed(scene: Scene, what: str) -> None:
    ALLOWED[what](scene)


POLICY = "ValidatingAdmissionPolicy"
RBAC = "is forbidden: User"


def _privileged(s: Scene, pod: str) -> Kubectl:
    """A pod whose account the tenant has given the right to make ConfigMaps."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "mine", "namespace": s.namespace}}
    s.admin("apply", "-f", "-", document=account)
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding"}
    bound = {
        **role,
        "metadata": {"name": "mine", "namespace": s.namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "mine", "namespace": s.namespace}],
    }
    s.admin("apply", "-f", "-", document=bound)
    return s.pod(pod, "mine")


def _forged_trigger(s: Scene) -> object:
    """The status of another package's trigger, in a body that says the trigger is the writer's own."""
    spec = {"packageRef": {"name": "alpha"}}
    return s.poller().patch_status("ctrig", "alpha-b-inbox", s.namespace, {"sequence": 7}, spec=spec)


REFUSED: dict[str, tuple[str, Callable[[Scene], object]]] = {
    # archives
    "an inspection publishes for another package": (
        POLICY,
        lambda s: _inspection(s).create(part("alpha-b", part_name("alpha-b"), s.namespace)),
    ),
    "an inspection publishes under another package's name": (
        POLICY,
        lambda s: _inspection(s).create(part("alpha", part_name("alpha-b"), s.namespace)),
    ),
    "an inspection publishes as another package's": (
        POLICY,
        lambda s: _inspection(s).create(part("alpha-b", part_name(), s.namespace)),
    ),
    "an inspection makes another ConfigMap": (
        POLICY,
        lambda s: _inspection(s).create(part("alpha", "settings", s.namespace)),
    ),
    "an inspection publishes what may be changed": (
        POLICY,
        lambda s: _inspection(s).create(part("alpha", part_name(), s.namespace, immutable=False)),
    ),
    "an inspection publishes text": (
        POLICY,
        lambda s: _inspection(s).create(part("alpha", part_name(), s.namespace, data={"a": "b"})),
    ),
    "an inspection publishes more than a part": (
        POLICY,
        lambda s: _inspection(s).create(
            part(
                "alpha", part_name(), s.namespace, binaryData={"part": base64.b64encode(PART + b"x" * 60_000).decode()}
            )
        ),
    ),
    "an inspection reads a ConfigMap": (RBAC, lambda s: _inspection(s).get("cm", "-n", s.namespace)),
    "an inspection reads secrets": (RBAC, lambda s: _inspection(s).get("secrets", "-n", s.namespace)),
    "an inspection reads packages": (RBAC, lambda s: _inspection(s).get("cpkg", "-n", s.namespace)),
    "an inspection deletes an archive": (RBAC, lambda s: _inspection(s)("delete", "cm", "any", "-n", s.namespace)),
    "a token without a pod publishes an archive": (
        POLICY,
        lambda s: s.unbound("cloacina-inspection").create(part("alpha", part_name(), s.namespace)),
    ),
    "a run named like an inspection publishes an archive": (
        POLICY,
        lambda s: _privileged(s, "alpha-b-inspect-abcdefgh-a1b2c").create(
            part("alpha-b", part_name("alpha-b"), s.namespace)
        ),
    ),
    # secrets, configuration, pods
    "a poller reads secrets": (RBAC, lambda s: s.poller()("get", "secrets", "-n", s.namespace)),
    "a run reads a secret by name": (RBAC, lambda s: s.process()("get", "secret", "password", "-n", s.namespace)),
    "a poller reads secrets of all namespaces": (RBAC, lambda s: s.poller()("get", "secrets", "-A")),
    "a run reads ConfigMaps": (RBAC, lambda s: s.process()("get", "configmaps", "-n", s.namespace)),
    "a poller creates a pod": (
        RBAC,
        lambda s: s.poller().create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "mine", "namespace": s.namespace},
                "spec": spec_of_a_pod(),
            }
        ),
    ),
    "a run creates a Job": (
        RBAC,
        lambda s: s.process()("create", "job", "mine", "--image=none.invalid/none:0", "-n", s.namespace),
    ),
    "a run makes a token of the poller": (
        RBAC,
        lambda s: s.process()("create", "token", "cloacina-poller", "-n", s.namespace),
    ),
    "a poller opens a shell in another pod": (
        RBAC,
        lambda s: s.poller()("exec", "alpha-1-x7k2p", "-n", s.namespace, "--", "true"),
    ),
    # runs of others
    "a poller submits a run of another package": (
        POLICY,
        lambda s: s.poller().create(run(unique("alpha-b"), "alpha-b", s.namespace, fired_by="alpha-b-inbox")),
    ),
    "a poller whose package's name begins another's submits for that": (
        POLICY,
        lambda s: s.poller("alpha-b").create(run(unique("alpha"), "alpha", s.namespace, fired_by="alpha-inbox")),
    ),
    "a poller submits a run without a trigger": (
        POLICY,
        lambda s: s.poller().create(run(unique("alpha"), "alpha", s.namespace)),
    ),
    "a poller's account submits with a token of no pod": (
        POLICY,
        lambda s: s.unbound("cloacina-poller").create(run(unique("alpha"), "alpha", s.namespace, "alpha-inbox")),
    ),
    "a pod of a run that is named as a poller's submits": (
        RBAC,
        lambda s: s.pod("alpha-poller-abc-x7k2p", "cloacina-run").create(
            run(unique("alpha"), "alpha", s.namespace, fired_by="alpha-inbox")
        ),
    ),
    "a run submits a run": (
        RBAC,
        lambda s: s.process().create(run(unique("alpha"), "alpha", s.namespace, fired_by="alpha-inbox")),
    ),
    "a poller submits in another namespace": (
        RBAC,
        lambda s: s.poller().create(run(unique("alpha"), "alpha", "default", fired_by="alpha-inbox")),
    ),
    "a poller cancels a run": (
        RBAC,
        lambda s: s.poller()("patch", "crun", "alpha-1", "-n", s.namespace, MERGE, "-p", '{"spec": {"cancel": true}}'),
    ),
    "a poller deletes a run": (RBAC, lambda s: s.poller()("delete", "crun", "alpha-1", "-n", s.namespace)),
    # statuses of others
    "a run writes the status of another run": (
        POLICY,
        lambda s: s.process().patch_status("crun", "alpha-b-1", s.namespace, {"phase": "Completed"}),
    ),
    "a run writes the status of a run whose name goes on where its own ends": (
        POLICY,
        lambda s: s.process("alpha").patch_status("crun", "alpha-1", s.namespace, {"phase": "Completed"}),
    ),
    "a run's account writes a status with a token of no pod": (
        POLICY,
        lambda s: s.unbound("cloacina-run").patch_status("crun", "alpha-1", s.namespace, {"phase": "Completed"}),
    ),
    "a poller writes the status of a run": (
        RBAC,
        lambda s: s.poller().patch_status("crun", "alpha-1", s.namespace, {"phase": "Completed"}),
    ),
    "a poller writes the status of another package's trigger": (
        POLICY,
        lambda s: s.poller().patch_status("ctrig", "alpha-b-inbox", s.namespace, {"sequence": 7}),
    ),
    "a poller forges whose trigger it is": (POLICY, _forged_trigger),
    "a poller writes the status of its package": (
        RBAC,
        lambda s: s.poller().patch_status("cpkg", "alpha", s.namespace, {"triggerCount": 9}),
    ),
    "a poller removes what the ledger remembers": (
        RBAC,
        lambda s: s.poller()("delete", "triggerledger", "any", "-n", s.namespace),
    ),
    # specs
    "a poller changes its trigger": (
        RBAC,
        lambda s: s.poller()("patch", "ctrig", "alpha-inbox", "-n", s.namespace, MERGE, "-p", '{"spec":{"name":"x"}}'),
    ),
    "a poller makes a package": (RBAC, lambda s: s.poller().create(package("mine", s.namespace))),
    "a run removes the policies": (
        RBAC,
        lambda s: s.process()("delete", "validatingadmissionpolicybinding", "cloacina-run-status"),
    ),
}


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


@pytest.mark.parametrize("what", REFUSED)
def test_refused(scene: Scene, what: str) -> None:
    reason, attempt = REFUSED[what]
    with pytest.raises(Refused) as refused:
        attempt(scene)
    assert reason in str(refused.value)


def test_an_account_that_a_package_brings_along_is_held_to_the_same(scene: Scene) -> None:
    """RBAC lets it, since somebody bound it; the policies still ask for the right pod."""
    s = scene
    s.admin("create", "serviceaccount", "own", "-n", s.namespace)
    s.admin(
        "create",
        "rolebinding",
        "own-run",
        "-n",
        s.namespace,
        "--clusterrole=cloacina-run",
        f"--serviceaccount={s.namespace}:own",
    )
    own = s.pod("alpha-1-yyyyy", "own")
    own.patch_status("crun", "alpha-1", s.namespace, {"message": "mine"})
    with pytest.raises(Refused, match="only the pod of run alpha-b-1 may write its status, not pod alpha-1-yyyyy"):
        own.patch_status("crun", "alpha-b-1", s.namespace, {"message": "not mine"})


@pytest.mark.parametrize(
    ("role", "may"),
    [("edit", {"create", "patch", "delete", "get", "list"}), ("view", {"get", "list"})],
    ids=["edit", "view"],
)
def test_people_have_the_rights_of_their_namespace_over_our_kinds(scene: Scene, role: str, may: set[str]) -> None:
    s, person = scene, f"person-who-may-{role}"
    s.admin("create", "rolebinding", person, "-n", s.namespace, f"--clusterrole={role}", f"--user={person}")
    s.admin("wait", "--for=create", f"clusterrole/cloacina-{role}")

    def can(verb: str, what: str) -> bool:
        with suppress(Refused):  # exit code 1 where the answer is no
            return s.admin("auth", "can-i", verb, *what.split(), "-n", s.namespace, "--as", person).startswith("yes")
        return False

    for kind in ("cloacinapackages", "triggers.cloacina.io", "workflowruns"):
        assert {verb for verb in ("create", "patch", "delete", "get", "list") if can(verb, kind)} == may
        assert not can("patch", f"{kind} --subresource=status")
    assert not can("update", "triggerledgers")


def test_the_operator_reads_no_secret(scene: Scene) -> None:
    operator = scene.admin.pod_identity(scene.anonymous, "cloacina-system", "cloacina-operator", "operator-for-this")
    for attempt in (["get", "secret", "password"], ["get", "secrets"], ["get", "secrets", "--watch"]):
        with pytest.raises(Refused, match=RBAC):
            operator(*attempt, "-n", scene.namespace)


def test_the_policies_have_no_type_errors(scene: Scene) -> None:
    """An expression that the server cannot type would refuse at every request."""
    names = ("run-status", "run-submission", "trigger-status", "archives")
    for name in names:
        policy = scene.admin.get("validatingadmissionpolicy", f"cloacina-{name}")
        assert not policy.get("status", {}).get("typeChecking", {}).get("expressionWarnings")


def test_roles_name_what_they_allow(rendered: list[dict[str, Any]]) -> None:
    roles = [document for document in rendered if document["kind"] in ("Role", "ClusterRole")]
    assert roles
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"], role["metadata"]["name"]
            assert "secrets" not in rule["resources"], role["metadata"]["name"]


def test_chart_holds_the_crds_as_generated() -> None:
    root = Path(__file__).parents[3]
    ours = {path.name: path.read_text() for path in (root / "crds").glob("*.yaml")}
    assert {path.name: path.read_text() for path in (root / "manifests/chart/files/crds").glob("*.yaml")} == ours
