"""A real API server: kube-apiserver and etcd as `build.sh` left them, for one test session.

It is Kubernetes 1.20.2, the newest that Debian packages hold whole. What it does not know yet is taken away from what
it is given, and nothing else: the chart's lower bound, disruption budgets of policy/v1, and in KubeRay's definitions
the CEL rules and empty defaults.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

ROOT = Path(__file__).parents[3]
CRDS = ("ray.io_rayservices", "ray.io_rayclusters")
READY_S = 90.0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Cluster:
    """A running API server and what talks to it."""

    kubeconfig: Path
    chart: Path

    def run(self, tool, *args, stdin=None, check=True):
        command = [Path(sys.executable).with_name(tool), "--kubeconfig", self.kubeconfig, *args]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)
        assert not check or done.returncode == 0, done.stderr
        return done

    def names(self, kind):
        return set(self.run("kubectl", "-n", "serving", "get", kind, "-o", "name").stdout.split())

    def service(self):
        """The stored RayService."""
        return yaml.safe_load(self.run("kubectl", "-n", "serving", "get", "rayservices", "-o", "yaml").stdout)["items"][
            0
        ]


def without_news(node):
    """A definition as Kubernetes 1.20 takes it: no CEL rules, and no empty default, which it reads as null."""
    if isinstance(node, dict):
        kept = {key: without_news(value) for key, value in node.items() if key != "x-kubernetes-validations"}
        return kept | ({"default": "none"} if kept.get("default") == "" else {})
    return [without_news(item) for item in node] if isinstance(node, list) else node


def old_chart(folder):
    """The chart for an API server below its lower bound."""
    copy = folder / "reasonserve"
    shutil.copytree(ROOT / "helm" / "reasonserve", copy)
    file = copy / "Chart.yaml"
    file.write_text(file.read_text().replace(">=1.29.0-0", ">=1.20.0-0"))
    return copy


@pytest.fixture(scope="session")
def binaries():
    """The folder of kube-apiserver and etcd."""
    folder = os.environ.get("REASONSERVE_TEST_CLUSTER")
    if not folder:
        pytest.skip("opt-in: `make test-cluster` builds an API server and names its folder in REASONSERVE_TEST_CLUSTER")
    assert (Path(folder) / "kube-apiserver").is_file(), f"{folder} has no kube-apiserver: run build.sh"
    return Path(folder)


@pytest.fixture(scope="session")
def cluster(binaries, tmp_path_factory):
    """The API server with KubeRay's definitions and the namespace "serving"."""
    folder = tmp_path_factory.mktemp("api")
    crds = Path(os.environ.get("REASONSERVE_KUBERAY_CRDS", ROOT.parent / "shared" / "kuberay"))
    if not list(crds.glob("ray.io_*.yaml")):
        pytest.skip(f"no KubeRay definitions in {crds}: name their folder in REASONSERVE_KUBERAY_CRDS")
    with ExitStack() as running:
        made = Cluster(start(binaries, folder, running), old_chart(folder))
        for name in CRDS:
            (file,) = crds.glob(f"{name}*.yaml")
            definition = without_news(yaml.load(file.read_text(), Loader=yaml.CSafeLoader))
            made.run("kubectl", "create", "-f", "-", stdin=yaml.safe_dump(definition))
        made.run("kubectl", "create", "namespace", "serving")
        made.run("kubectl", "wait", "crd/rayservices.ray.io", "--for=condition=Established", "--timeout=60s")
        yield made


def start(binaries, folder, running):
    """Starts etcd and the API server and returns an administrator's kubeconfig."""
    etcd, peer, port = (free_port() for _ in range(3))
    client = f"http://127.0.0.1:{etcd}"
    flags = (f"--data-dir={folder}/etcd", f"--listen-client-urls={client}", f"--advertise-client-urls={client}")
    flags += (f"--listen-peer-urls=http://127.0.0.1:{peer}", "--unsafe-no-fsync")
    spawn(running, folder / "etcd.log", binaries / "etcd", *flags)
    (folder / "tokens.csv").write_text('administrator,admin,admin,"system:masters"\n')
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (folder / "sa.key").write_bytes(pem)
    server = spawn(
        running, folder / "api.log", binaries / "kube-apiserver", f"--etcd-servers={client}", f"--secure-port={port}",
        "--bind-address=127.0.0.1", f"--cert-dir={folder}/certs", f"--token-auth-file={folder}/tokens.csv",
        "--authorization-mode=RBAC", "--service-account-issuer=https://api", "--service-cluster-ip-range=10.0.0.0/24",
        f"--service-account-key-file={folder}/sa.key", f"--service-account-signing-key-file={folder}/sa.key",
        "--disable-admission-plugins=ServiceAccount",
    )  # fmt: skip
    config = folder / "kubeconfig"
    config.write_text(yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}}],
        "users": [{"name": "test", "user": {"token": "administrator"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }))  # fmt: skip
    wait_ready(Cluster(config, folder), server, folder / "api.log")
    return config


def spawn(running, log, *argv):
    output = running.enter_context(log.open("wb"))
    process = running.enter_context(subprocess.Popen(list(map(str, argv)), stdout=output, stderr=output))
    running.callback(process.terminate)
    return process


def wait_ready(cluster, server, log):
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-2000:]
        if cluster.run("kubectl", "get", "--raw", "/readyz", check=False).stdout == "ok":
            return
        time.sleep(0.3)
    pytest.fail(log.read_text()[-2000:])
