"""The real helm, and what it renders."""

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).parents[2]
FILES = ("values.yaml", "values-local.yaml", "values-h200.yaml", "values-multi-tenant.yaml")
SECRET = "adminToken.existingSecret=reasonserve-admin"
Document = dict[str, Any]
PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Render:
    """What helm made of some values."""

    text: str
    documents: tuple[Document, ...]

    @classmethod
    def of(cls, text: str) -> "Render":
        """Reads a render."""
        return cls(text, tuple(document for document in yaml.safe_load_all(text) if document))

    def of_kind(self, kind: str) -> list[Document]:
        return [document for document in self.documents if document["kind"] == kind]

    def one(self, kind: str, suffix: str = "") -> Document:
        """The only document of a kind whose name ends so."""
        (found,) = [document for document in self.of_kind(kind) if document["metadata"]["name"].endswith(suffix)]
        return found

    @property
    def cluster(self) -> Document:
        """The Ray cluster."""
        return self.one("RayService")["spec"]["rayClusterConfig"]

    @property
    def serve_config(self) -> str:
        """The text that Ray Serve loads."""
        return self.one("RayService")["spec"]["serveConfigV2"]

    def pods(self) -> dict[str, Document]:
        """Every pod template by component; nodes for replicas by their group's name."""
        pods = {}
        for document in self.of_kind("Deployment"):
            template = document["spec"]["template"]
            pods[template["metadata"]["labels"]["app.kubernetes.io/component"]] = template
        pods["test"] = self.one("Pod")
        pods["head"] = self.cluster["headGroupSpec"]["template"]
        return pods | {group["groupName"]: group["template"] for group in self.cluster["workerGroupSpecs"]}


class Chart:
    """The chart in this tree, under the real helm."""

    root = ROOT
    folder = ROOT / "helm" / "reasonserve"
    binary = Path(sys.executable).with_name("helm")
    files = FILES

    def helm(self, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs helm; a missing binary fails with what to do."""
        assert self.binary.is_file(), "helm is missing: run `make .venv/bin/helm`"
        return subprocess.run(
            [self.binary, *args], input=stdin, capture_output=True, text=True, check=False, timeout=60
        )

    def try_render(
        self, values: Mapping[str, Any] | None = None, *, file: str = FILES[0], sets: Iterable[str] = (SECRET,)
    ) -> subprocess.CompletedProcess[str]:
        """Renders as the release "rs" in the namespace "serving"; a refusal is the caller's to look at."""
        args = ["template", "rs", str(self.folder), "--namespace", "serving", "--kube-version", "1.31.0"]
        args += ["--values", str(self.folder / file)]
        args += [part for item in sets for part in ("--set", item)]
        return self.helm(*args, "--values", "-", stdin=json.dumps(values or {}))

    def render(
        self, values: Mapping[str, Any] | None = None, *, file: str = FILES[0], sets: Iterable[str] = (SECRET,)
    ) -> Render:
        """As `try_render`; a refusal fails with helm's own words."""
        done = self.try_render(values, file=file, sets=sets)
        assert done.returncode == 0, done.stderr
        return Render.of(done.stdout)


@cache
def rendered(file: str) -> Render:
    """What a values file renders to; each names the Secret that values.yaml asks for."""
    return Chart().render(file=file)


@pytest.fixture(scope="session")
def chart() -> Chart:
    return Chart()


@pytest.fixture(params=FILES)
def render(request: pytest.FixtureRequest) -> Render:
    """What each values file renders to."""
    return rendered(request.param)


@pytest.fixture(scope="session")
def renders() -> dict[str, Render]:
    """What all values files render to."""
    return {file: rendered(file) for file in FILES}


@pytest.fixture(scope="session")
def kuberay() -> Path:
    """The folder of KubeRay's definitions; they are not part of this project."""
    folder = Path(os.environ.get("REASONSERVE_KUBERAY_CRDS", ROOT.parent / "shared" / "kuberay"))
    if not list(folder.glob("ray.io_rayservices*.yaml")):
        pytest.skip(
            f"no KubeRay definitions in {folder}: name the folder of ray.io_rayservices*.yaml of KubeRay v1.7.0 in "
            "REASONSERVE_KUBERAY_CRDS"
        )
    return folder


def certificate(name, key, issuer=None, issuer_key=None):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer.subject if issuer else subject)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(
        now + datetime.timedelta(days=2)
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    return builder.sign(issuer_key or key, hashes.SHA256())


def write(folder, name, issuer=None, issuer_key=None):
    key = ec.generate_private_key(ec.SECP256R1())
    made = certificate(name, key, issuer, issuer_key)
    pkcs8 = serialization.PrivateFormat.PKCS8
    (folder / f"{name}.crt").write_bytes(made.public_bytes(PEM))
    (folder / f"{name}.key").write_bytes(key.private_bytes(PEM, pkcs8, serialization.NoEncryption()))
    return made, key


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, a server's certificate and a client's, each with its key."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = write(folder, "ca")
    for name in ("tls", "tenant-acme"):
        write(folder, name, *authority)
    return folder
