"""Bring up one real node in namespaces of its own, and serve orders until standard input ends. Then nothing is left.

It is process 1 of its namespaces, where ``node.py`` starts it: when it ends, however it ends, the kernel ends every
process, mount and network device of the node. Cgroups, which have no such keeper, it removes last. What a kubelet would
change of the whole machine (kernel.panic and the like) it gets as files of its own, so the machine never changes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.control_plane import ControlPlane, control_plane
from cluster.node import images, machine

ADDRESS = "10.200.0.1"
PODS = "10.244.0.0/24"
NODE = "node1"
TUNABLES = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)  # what a kubelet sets under /proc/sys
READY_SECONDS = 120.0
FAST = ("--kube-api-qps=500", "--kube-api-burst=1000", "--leader-elect=false", "--bind-address=127.0.0.1")


def prepare(folder: Path) -> None:
    """Private places for what programs of a node keep at fixed paths, and a network with an address."""
    for place in ("/run", "/var/lib", "/var/log"):
        _run("mount", "-t", "tmpfs", "tmpfs", place)
    for name in ("containerd", "kubelet"):  # too large for memory, and overlays do not stand on overlays
        place, kept = Path("/var/lib") / name, folder / "data" / name
        place.mkdir()
        kept.mkdir(parents=True)
        _run("mount", "--bind", str(kept), str(place))
    for name in TUNABLES:
        real, ours = Path("/proc/sys") / name, folder / "data" / name.replace("/", ".")
        if real.exists():
            ours.write_bytes(real.read_bytes())
            _run("mount", "--bind", str(ours), str(real))
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", "node", "type", "bridge")  # the kubelet takes no loopback for the node's address
    _run("ip", "address", "add", f"{ADDRESS}/32", "dev", "node")
    _run("ip", "link", "set", "node", "up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    with suppress(OSError):  # it is there only where bridges are filtered at all
        Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text("1")


def make_cgroup(name: str) -> None:
    """A cgroup of that name in each hierarchy, with every controller on."""
    for hierarchy in machine.hierarchies():
        ours = hierarchy / name
        if (hierarchy / "cgroup.controllers").exists():
            on = " ".join(f"+{one}" for one in (hierarchy / "cgroup.controllers").read_text().split())
            with suppress(OSError):  # what is on already, and what this kernel does not hand down
                (hierarchy / "cgroup.subtree_control").write_text(on)
        ours.mkdir(exist_ok=True)
        for share, value in (("cpu.shares", "20480"), ("cpu.weight", "2000")):
            if (ours / share).exists():  # all pods together would weigh as much as one process beside them
                (ours / share).write_text(value)
        for given in ("cpuset.cpus", "cpuset.mems"):  # empty in a new one, which then takes no process
            if (ours / given).exists() and not (ours / given).read_text().strip():
                (ours / given).write_text((hierarchy / given).read_text())


def remove_cgroup(name: str) -> None:
    """Remove it with all below, in each hierarchy; processes that have just been killed may still leave it."""
    until = time.monotonic() + 10.0
    for hierarchy in machine.hierarchies():
        ours = hierarchy / name
        while ours.exists() and time.monotonic() < until:
            for below, _, _ in os.walk(ours, topdown=False):
                with suppress(OSError):
                    Path(below).rmdir()
            if ours.exists():
                time.sleep(0.02)  # the kernel tells nobody when the last one is out


class Node:
    """The programs of a node on top of a control plane."""

    def __init__(self, plane: ControlPlane, folder: Path, cgroup: str) -> None:
        self.plane, self.folder, self.cgroup = plane, folder, cgroup

    def start(self, programs: dict[str, Path], archives: list[Path]) -> None:
        """Everything, in order, with the images in ``archives``; the node is Ready when this returns."""
        self.plane.commands |= {
            "kube-scheduler": [str(programs["kube-scheduler"]), self._as("scheduler"), *FAST],
            "containerd": ["containerd", f"--config={self._containerd()}", "--log-level=warn"],
            "kubelet": [
                str(programs["kubelet"]),
                f"--config={self._kubelet()}",
                self._as("node"),
                f"--hostname-override={NODE}",
                f"--node-ip={ADDRESS}",
            ],
            "kube-proxy": [str(programs["kube-proxy"]), f"--config={self._proxy()}"],
        }
        for name in ("containerd", "kube-scheduler", "kube-proxy"):
            self.plane.start(name)
        self._until("containerd", "ctr", "version")
        for archive in archives:
            _run("ctr", "--namespace=k8s.io", "images", "import", str(archive))
        self.plane.start("kubelet")
        kubectl = (str(programs["kubectl"]), f"--kubeconfig={self.plane.kubeconfig}")
        self._until("kubelet", *kubectl, "get", "node", NODE)
        self._until("kubelet", *kubectl, "wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=10s")

    def _as(self, who: str) -> str:
        return f"--kubeconfig={self.folder / f'{who}.kubeconfig'}"

    def _until(self, program: str, *command: str) -> None:
        """Ask until the answer is good: none of them says when it is ready."""
        until = time.monotonic() + READY_SECONDS
        while subprocess.run(command, capture_output=True, check=False).returncode != 0:
            if self.plane.processes[program].poll() is not None or time.monotonic() > until:
                log = (self.folder / f"{program}.log").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{program} is not ready:\n{log}")
            time.sleep(0.1)

    def _containerd(self) -> Path:
        network = self._write(
            "cni/10-bridge.conflist",
            {
                "cniVersion": "0.4.0",
                "name": "pods",
                "plugins": [
                    {
                        "type": "bridge",
                        "bridge": "pods",
                        "isGateway": True,
                        "hairpinMode": True,
                        "ipam": {
                            "type": "host-local",
                            "dataDir": "/run/ipam",
                            "ranges": [[{"subnet": PODS}]],
                            "routes": [{"dst": "0.0.0.0/0"}],
                        },
                    }
                ],
            },
        )
        path = self.folder / "containerd.toml"
        path.write_text(
            f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{images.PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{machine.cni()}"
    conf_dir = "{network.parent}"
"""
        )
        return path

    def _kubelet(self) -> Path:
        names = self.folder / "resolv.conf"
        names.touch()
        return self._write(
            "kubelet.json",
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "address": ADDRESS,
                "healthzBindAddress": "127.0.0.1",
                "authentication": {
                    "anonymous": {"enabled": False},
                    "webhook": {"enabled": True},
                    "x509": {"clientCAFile": str(self.folder / "pki" / "ca.crt")},
                },
                "authorization": {"mode": "Webhook"},
                "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
                "cgroupRoot": f"/{self.cgroup}",
                "cgroupDriver": "cgroupfs",
                "failCgroupV1": False,
                "failSwapOn": False,
                "oomScoreAdj": 0,
                "makeIPTablesUtilChains": False,
                "clusterDNS": [ADDRESS],  # nobody answers there: nothing of ours may need a name
                "resolvConf": str(names),
                "volumePluginDir": "/var/lib/kubelet/plugins-exec",
                "imageGCHighThresholdPercent": 100,
                "imageGCLowThresholdPercent": 99,
                "serializeImagePulls": False,
                "kubeAPIQPS": 500,
                "kubeAPIBurst": 1000,
                "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            },
        )

    def _proxy(self) -> Path:
        return self._write(
            "proxy.json",
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "mode": "nftables",
                "clusterCIDR": PODS,
                "hostnameOverride": NODE,
                "healthzBindAddress": "127.0.0.1:10256",
                "metricsBindAddress": "127.0.0.1:10249",
                "clientConnection": {"kubeconfig": str(self.folder / "proxy.kubeconfig")},
                "oomScoreAdj": 0,
                "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
                "nftables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
            },
        )

    def _write(self, name: str, document: dict[str, Any]) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document))
        return path


def work(folder: Path, cgroup: str, programs: dict[str, Path], archives: list[Path]) -> None:
    """Bring the node up, say so, and obey: ``stop NAME`` and ``start NAME``, one a line, each answered by a line."""
    prepare(folder)
    make_cgroup(cgroup)
    flags = (
        "--endpoint-reconciler-type=lease",
        "--enable-admission-plugins=NodeRestriction",
        f"--kubelet-client-certificate={folder / 'pki' / 'kubelet-client.crt'}",
        f"--kubelet-client-key={folder / 'pki' / 'kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
    )
    with control_plane(programs, folder, ADDRESS, flags) as plane:
        Node(plane, folder, cgroup).start(programs, archives)
        print("ready", flush=True)
        orders = {"stop": plane.stop, "start": plane.start}
        for line in sys.stdin:
            order, name = line.split()
            orders[order](name)
            print("done", flush=True)


def main(folder: Path, cgroup: str, files: list[Path]) -> int:
    """As process 1: let a child work, and clear up after everybody. ``files``: programs, and archives of images."""
    archives = [path for path in files if path.suffix == ".tar"]
    programs = {path.name: path for path in files if path not in archives}
    worker = os.fork()
    if worker == 0:
        os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        try:
            work(folder, cgroup, programs, archives)
        except Exception as error:  # whatever it is, who waits outside has to read it
            print(f"failed {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    status = 0
    while True:  # orphans end here, too
        pid, ended = os.wait()
        if pid == worker:
            status = os.waitstatus_to_exitcode(ended)
            break
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with suppress(ChildProcessError):
        while True:
            os.wait()
    remove_cgroup(cgroup)
    for place in ("/var/lib", "/run"):  # what is mounted below cannot be removed
        subprocess.run(["umount", "--recursive", "--lazy", place], capture_output=True, check=False)
    shutil.rmtree(folder / "data", ignore_errors=True)
    return status


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], [Path(argument) for argument in sys.argv[3:]]))
