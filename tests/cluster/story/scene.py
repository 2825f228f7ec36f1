"""What a person does in the story, with kubectl and helm, and what there is to see. Knows no test."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cluster.control_plane import ControlPlane
from cluster.node.node import Node
from figures import figures

from cloaca.resources.names import keyed_run_name

ROOT = Path(__file__).parents[3]
CHART = ROOT / "manifests" / "chart"
NAMESPACE = "story"
SYSTEM = "cloacina-system"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
PATIENCE = float(os.environ.get("CLOACINA_PATIENCE", "180"))  # seconds for anything, on a busy machine
KINDS = "cloacinapackages,triggers.cloacina.io,workflowruns"

Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A cluster on which the chart is installed, and one namespace of packages, that enforces `restricted`."""

    plane: ControlPlane
    node: Node | None  # None: somebody else's cluster, whose programs are not ours to stop
    image: str
    helm_program: Path

    # --- a person's tools

    def kubectl(self, *words: str, document: Any = None) -> str:
        """In the namespace of packages."""
        return self.plane.kubectl("-n", NAMESPACE, *words, document=document)

    def helm(self, *words: str) -> str:
        """What Helm prints. Raises RuntimeError with what it said."""
        command = [*self.plane.within, str(self.helm_program), f"--kubeconfig={self.plane.kubeconfig}", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"helm {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, what: str, *words: str) -> Object:
        """One object, or a list."""
        found: Object = json.loads(self.kubectl("get", what, *words, "-o", "json"))
        return found

    def until(self, what: str, look: Callable[[], Any], patience: float = PATIENCE) -> Any:
        """What ``look`` gives, once it gives something; fails with all there is to see."""
        until = time.monotonic() + patience
        while time.monotonic() < until:
            with suppress(RuntimeError):  # the API server may be away, or the object not there yet
                if found := look():
                    return found
            time.sleep(0.4)  # each look is a process
        pytest.fail(f"waited {patience:g} s for {what}\n{self.told()}")

    def wait(self, thing: str, condition: str) -> None:
        """Until ``kubectl wait --for=CONDITION`` says so."""
        self.until(f"{condition} of {thing}", lambda: self._waited(thing, condition))

    def _waited(self, thing: str, condition: str) -> str:
        return self.kubectl("wait", f"--for={condition}", thing, "--timeout=20s")

    def told(self) -> str:
        """Everything that helps to see what went wrong."""
        said = []
        for words in (
            ["get", KINDS, "-n", NAMESPACE, "-o", "yaml"],
            ["get", "pods,jobs,deployments", "-A"],
            ["get", "events", "-n", NAMESPACE, "--sort-by=.lastTimestamp"],
            ["logs", "-n", SYSTEM, "deployment/cloacina-operator", "--tail=40"],
        ):
            with suppress(RuntimeError):
                said.append(f"== kubectl {' '.join(words)}\n{self.plane.kubectl(*words)[-6000:]}")
        return "\n".join(said)

    # --- packages

    def deploy(self, name: str, archive: bytes, version: str, **spec: Any) -> None:
        """Apply a package whose archive is in a ConfigMap of its own."""
        source = f"{name}-{version.replace('.', '-')}"
        data = {"package.cloacina": base64.b64encode(archive).decode()}
        self.plane.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": source, "namespace": NAMESPACE},
                "binaryData": data,
            },
            {
                "apiVersion": "cloacina.io/v1alpha1",
                "kind": "CloacinaPackage",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {"source": {"configMap": {"name": source}}, **spec},
            },
        )

    def await_version(self, name: str, version: str) -> None:
        """Until this version is active, polled and Ready."""
        self.wait(f"cpkg/{name}", f"jsonpath={{.status.active.version}}={version}")
        self.wait(f"cpkg/{name}", "condition=Ready")
        self.wait(f"cpkg/{name}", "condition=Polling")

    def clear(self) -> None:
        """Delete all packages with their sources, and wait until nothing of them is left."""
        packages = [package["metadata"]["name"] for package in self.get("cpkg")["items"]]
        self.kubectl("delete", "cpkg", "--all", "--wait=false")
        for package in packages:
            self.until(f"all of {package} to go", lambda: not self.left_of(package))  # noqa: B023  # called at once
        self.kubectl("delete", "configmaps", "-l", "!app.kubernetes.io/managed-by", "--field-selector",
                     "metadata.name!=kube-root-ca.crt")  # fmt: skip

    def left_of(self, package: str) -> list[str]:
        """Names of what there is of a package, its own object included."""
        kinds = "cpkg,ctrig,crun,triggerledgers,deployments,replicasets,jobs,pods,configmaps"
        found = self.get(kinds)["items"]
        return [
            f"{item['kind']}/{item['metadata']['name']}"
            for item in found
            if item["metadata"].get("labels", {}).get("cloacina.io/package") == package
            or (item["kind"], item["metadata"]["name"]) == ("CloacinaPackage", package)
        ]

    # --- runs

    def run_of(self, file: str, package: str = "orders") -> str:
        """Name of the run that this file fires."""
        trigger = f"{package}-inbox"
        return keyed_run_name(trigger, self.get(f"ctrig/{trigger}")["metadata"]["uid"], file)

    def await_run(self, name: str, phase: str = "Completed") -> Object:
        """The run, in that phase."""
        self.wait(f"crun/{name}", f"jsonpath={{.status.phase}}={phase}")
        return self.get(f"crun/{name}")

    def runs(self, package: str = "orders") -> dict[str, str]:
        """Key → phase of all runs of a package."""
        found = self.get("crun", "-l", f"cloacina.io/package={package}")["items"]
        return {run["spec"].get("key", run["metadata"]["name"]): run["status"]["phase"] for run in found}

    def scraped(self, package: str) -> dict[str, float]:
        """What the poller of a package tells whoever scrapes it from another pod."""
        (pod,) = self.get("pods", "-l", f"cloacina.io/component=poller,cloacina.io/package={package}")["items"]
        (port,) = (port for container in pod["spec"]["containers"] for port in container["ports"])
        url = f"http://{pod['status']['podIP']}:{port['containerPort']}/metrics"
        ask = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
        return figures(self.kubectl("exec", "desk", "--", "python", "-c", ask, url))

    # --- data: a pod with the volume stands for whoever brings files

    def shell(self, script: str) -> str:
        """Run it where the data is mounted."""
        return self.kubectl("exec", "desk", "--", "sh", "-c", f"cd /data && {script}")

    def bring(self, *files: str, held: bool = False) -> None:
        """Put files into the inbox; ``held``: their runs stay in the second task until ``release``."""
        hold = f"touch {' '.join(f'hold/{file}' for file in files)} && " if held else ""
        self.shell(f"{hold}touch {' '.join(f'inbox/{file}' for file in files)}")

    def release(self, file: str) -> None:
        """Let the run of the file go on."""
        self.shell(f"rm hold/{file}")

    def effects(self, file: str) -> list[str]:
        """What was done for a file, in order: ``first 1.0.0`` and so on."""
        lines = self.shell("cat effects 2>/dev/null || true").splitlines()
        return [f"{what} {version}" for what, name, version in map(str.split, lines) if name == file]

    def await_effect(self, file: str, what: str, count: int = 1) -> None:
        """Until it was done ``count`` times."""
        self.until(f"{what} of {file}", lambda: self.effects(file).count(what) >= count)

    # --- what there is to read

    @contextmanager
    def cloaca(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Our command line, at work on the namespace of packages."""
        program = str(Path(sys.executable).with_name("cloaca"))
        command = [*self.plane.within, program, "--kubernetes", *words, "-n", NAMESPACE]
        environment = {**os.environ, "KUBECONFIG": str(self.plane.kubeconfig)}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as it:
            try:
                yield it
            finally:
                it.kill()

    def conditions(self, thing: str) -> dict[str, Any]:
        """Type → condition of an object."""
        said = self.get(thing).get("status", {}).get("conditions", ())
        return {condition["type"]: condition for condition in said}

    def waits_for_a_node(self, thing: str, condition: str) -> str:
        """What an object says while no node takes its pod; empty: it does not say so."""
        said = self.conditions(thing)[condition]
        return str(said["message"]) if said["reason"] == "Unschedulable" else ""

    def events(self, name: str, reason: str, namespace: str = NAMESPACE) -> list[str]:
        """What was told of an object with that reason."""
        chosen = f"--field-selector=involvedObject.name={name},reason={reason}"
        found = json.loads(self.plane.kubectl("get", "events", "-n", namespace, chosen, "-o", "json"))["items"]
        return [event["message"] for event in found]

    # --- trouble

    @contextmanager
    def drained(self, selector: str) -> Iterator[None]:
        """The node has let go of the pods that a selector names, and takes none, for the block."""
        node = self.get("pod/desk")["spec"]["nodeName"]
        try:
            self.plane.kubectl("drain", node, f"--pod-selector={selector}", "--delete-emptydir-data",
                               "--ignore-daemonsets", "--timeout=100s")  # fmt: skip
            yield
        finally:
            self.plane.kubectl("uncordon", node)

    def stop_operator(self) -> None:
        """No operator any more."""
        self._operators(0)
        self.until("the operator to go", lambda: not self._operator_pods())

    def start_operator(self) -> None:
        """One operator that leads."""
        self._operators(1)
        self.plane.kubectl("rollout", "status", "-n", SYSTEM, "deployment/cloacina-operator", "--timeout=100s")

    def _operators(self, count: int) -> None:
        self.plane.kubectl("scale", "-n", SYSTEM, "deployment/cloacina-operator", f"--replicas={count}")

    def _operator_pods(self) -> str:
        return self.plane.kubectl("get", "pods", "-n", SYSTEM, "-o", "name")

    def kill(self, *pods: str, namespace: str = NAMESPACE) -> None:
        """SIGKILL for pods that a selector names."""
        self.plane.kubectl("delete", "pods", "-n", namespace, *pods, "--force", "--grace-period=0", "--wait=false")

    @contextmanager
    def without(self, program: str) -> Iterator[None]:
        """Kill a program of the cluster for the block, and start it again."""
        if self.node is None:
            pytest.skip(f"the {program} of the cluster of $KUBECONFIG is not ours to stop")
        self.node.stop(program)
        try:
            yield
        finally:
            self.node.start(program)
