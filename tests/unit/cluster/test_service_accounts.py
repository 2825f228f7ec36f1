"""Which service account each pod of a package has: pollers and runs never the same, whatever a podTemplate says."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from cloacina_operator.core.inspections import inspection_job
from cloacina_operator.core.manifests import PodSettings, poller_deployment, run_job
from cloacina_operator.core.packages import ACCOUNT_IGNORED, Fetched, ObservedPackage, plan

from cloaca.packages.acceptance import Accepted
from cloaca.packages.archive import Limits
from cloaca.resources import CloacinaPackage, ObjectMeta, PackageSpec, WorkflowRun
from cloaca.resources.package import PackageSource, PackageStatus, ServiceAccounts
from cloaca.resources.run import RunSpec
from cloaca.resources.trigger import PackageReference

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
DIGEST = "sha256:" + "0" * 64
SETTINGS = PodSettings(image="i:1")
OWN = ServiceAccounts(poller="own-poller", run="own-run", inspection="own-inspection")


def package(**spec: Any) -> CloacinaPackage:
    return CloacinaPackage(
        metadata=ObjectMeta(name="data", namespace="team", uid="u"),
        spec=PackageSpec(source=PackageSource(url="https://example.com/data.cloacina"), **spec),
    )


def pods(of: CloacinaPackage) -> list[dict[str, Any]]:
    spec = RunSpec(workflow="w", package_ref=PackageReference(name=of.name))
    run = WorkflowRun(metadata=ObjectMeta(name="data-1", namespace="team", uid="r"), spec=spec)
    made = (
        poller_deployment(of, DIGEST, 1, SETTINGS),
        run_job(run, of, DIGEST, 1, 1, SETTINGS, NOW),
        inspection_job(of, (), None, SETTINGS, Limits()),
    )
    return [one["spec"]["template"]["spec"] for one in made]


@pytest.mark.parametrize("field", ["serviceAccountName", "serviceAccount"])
@pytest.mark.parametrize(
    ("own", "names"),
    [
        pytest.param(None, ["cloacina-poller", "cloacina-run", "cloacina-inspection"], id="the operator's"),
        pytest.param(OWN, ["own-poller", "own-run", "own-inspection"], id="the package's"),
        pytest.param(
            ServiceAccounts(run="own-run"),
            ["cloacina-poller", "own-run", "cloacina-inspection"],
            id="one of the package's",
        ),
    ],
)
def test_an_account_in_the_pod_template_is_never_used(
    own: ServiceAccounts | None, names: list[str], field: str
) -> None:
    made = pods(package(service_accounts=own, pod_template={"spec": {field: "of-all", "nodeName": "n"}}))
    assert "of-all" not in str(made)
    assert [pod["serviceAccountName"] for pod in made] == names
    assert [pod["nodeName"] for pod in made] == ["n", "n", "n"], "the rest of the template holds"


def test_an_inspection_has_no_token_whatever_its_account() -> None:
    (*_, plain), (*_, own) = pods(package()), pods(package(service_accounts=OWN))
    assert own["serviceAccountName"] == "own-inspection"
    assert [pod["automountServiceAccountToken"] for pod in (plain, own)] == [False, False]


def planned(of: CloacinaPackage) -> PackageStatus:
    accepted = Accepted(version="1.0.0", workflows=(), tasks=(), triggers=(), warnings=("of the archive",))
    observed = ObservedPackage(
        package=of, fetch=Fetched(digest=DIGEST), verdict=accepted, polled=frozenset(), poller=None, now=NOW
    )
    status = plan(observed).status
    assert status is not None
    return status


def test_an_account_that_is_ignored_is_told_until_it_is_gone() -> None:
    template = {"spec": {"serviceAccountName": "of-all"}}
    first = planned(package(pod_template=template))
    assert first.warnings == ("of the archive", ACCOUNT_IGNORED)
    again = planned(package(pod_template=template).model_copy(update={"status": first}))
    assert again.warnings == first.warnings, "said once"
    assert planned(package().model_copy(update={"status": again})).warnings == ("of the archive",)
    assert planned(package(pod_template=template, suspend=True)).warnings == (ACCOUNT_IGNORED,)
