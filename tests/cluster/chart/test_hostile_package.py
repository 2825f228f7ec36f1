"""What the code of a package can do with the tokens of its pods: its own work, and nothing else."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cluster.chart.hostile import DIGEST, MERGE, Scene, package, run, sourced, unique
from cluster.kubectl import Kubectl, Refused

from cloaca.store.kubernetes.archives import package_parts


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
    "an inspection with an account of its package's own publishes a part of an archive": lambda s: _privileged(
        s, "alpha-inspect-abcdefgh-a1b2c"
    ).create(part("alpha", part_name(), s.namespace)),
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
    "a run with an account that may make ConfigMaps publishes an archive": (
        POLICY,
        lambda s: _privileged(s, "alpha-b-1-a1b2c").create(part("alpha-b", part_name("alpha-b"), s.namespace)),
    ),
    "an inspection with an account of its package's own makes some other ConfigMap": (
        POLICY,
        lambda s: _privileged(s, "alpha-inspect-abcdefgh-a1b2c").create(part("alpha", "settings-of-own", s.namespace)),
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
