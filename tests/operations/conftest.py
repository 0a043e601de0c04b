"""A stack with the fake engine, a TLS front, metrics pages, JSON logs and a collector of spans."""

import datetime
import ipaddress
import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from reasonserve.api.v1 import generation_service_pb2_grpc as generation_grpc
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.cli import client
from reasonserve.stack.paths import StatePaths
from reasonserve.stack.state import StackState
from reasonserve.telemetry import names

WAIT_S = 30.0


def wait_for(read: Callable[[], object]) -> object:
    """Returns what a reading gives as soon as it is true; the test fails when it never is."""
    deadline = time.monotonic() + WAIT_S
    while not (value := read()):
        assert time.monotonic() < deadline, f"it did not happen within {WAIT_S} s"
        time.sleep(0.1)
    return value


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP/gRPC collector that keeps what it is sent."""

    spans: list = field(default_factory=list)

    def Export(self, request, context):
        self.spans += [span for of in request.resource_spans for scope in of.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def trace(self, trace_id: int) -> list:
        wanted = trace_id.to_bytes(16, "big")
        return [span for span in list(self.spans) if span.trace_id == wanted]

    def parents(self, trace_id: int) -> tuple[list[str], list[str]]:
        """Returns a trace's roots, and its spans whose parent is missing, by name."""
        spans = self.trace(trace_id)
        known = {span.span_id for span in spans}
        roots = [span.name for span in spans if not span.parent_span_id]
        return roots, [span.name for span in spans if span.parent_span_id and span.parent_span_id not in known]

    def attempts(self, trace_id: int) -> list[tuple[str, int]]:
        """Returns a trace's spans that tell which try they belong to, by name and number."""
        told = ((span.name, a) for span in self.trace(trace_id) for a in span.attributes)
        return sorted((name, a.value.int_value) for name, a in told if a.key == names.ATTEMPT)


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Collector, str]]:
    kept, server = Collector(), grpc.server(futures.ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(kept, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield kept, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.crt, and server and client each with .crt and .key, the client's CN being `client`."""
    folder, keys = tmp_path_factory.mktemp("pki"), {}
    now, authority = datetime.datetime.now(datetime.UTC), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    for name in ("ca", "server", "client"):
        keys[name] = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            x509.CertificateBuilder(authority, subject, keys[name].public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .sign(keys["ca"], hashes.SHA256())
        )
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (folder / f"{name}.crt").write_bytes(certificate.public_bytes(encoding))
        (folder / f"{name}.key").write_bytes(keys[name].private_bytes(encoding, form, serialization.NoEncryption()))
    return folder


def free_ports(count: int) -> list[int]:
    """Returns ports that were free a moment ago, all different."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@dataclass(frozen=True)
class Operated:
    """The running stack as its operator sees it."""

    folder: Path
    ports: dict[str, int]
    pki: Path
    collector: Collector
    otlp_endpoint: str

    @property
    def state(self) -> StackState:
        state = StackState.read(StatePaths(self.folder / "state").state_file)
        assert state is not None
        return state

    def admin(self, rpc: str, request: object) -> object:
        with client.admin(None, None, self.folder / "state") as admin:
            return admin.call(getattr(admin.services.tenants, rpc), request)

    def new_key(self, tenant_id: str) -> tuple[str, str]:
        """Returns a new key of a tenant and the key's id."""
        made = self.admin("CreateTenantKey", tenant_pb.CreateTenantKeyRequest(tenant_id=tenant_id))
        return made.key, made.key_id

    def channel(self, *, front: bool = False, certificate: str = "client") -> grpc.Channel:
        if not front:
            return grpc.insecure_channel(self.state.gateway_endpoint)
        pair = [(self.pki / f"{certificate}.{kind}").read_bytes() for kind in ("key", "crt") if certificate]
        credentials = grpc.ssl_channel_credentials((self.pki / "ca.crt").read_bytes(), *pair)
        return grpc.secure_channel(f"127.0.0.1:{self.ports['front']}", credentials)

    def stub(self, **how: object) -> generation_grpc.GenerationServiceStub:
        return generation_grpc.GenerationServiceStub(self.channel(**how))

    def page(self, which: str) -> dict[str, list]:
        """Returns the samples of a metrics page by family."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[which]}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            return {family.name: family.samples for family in families}

    def log_lines(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]


def write_model(folder: Path) -> Path:
    """Writes the smallest folder that passes for a model."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    return folder


def write_config(folder: Path, ports: dict[str, int], otlp_endpoint: str) -> Path:
    """Writes the configuration of a stack with two replicas and everything that an operator looks at."""
    config = {
        "model": str(write_model(folder / "model")),
        "gateway": {"port": ports["gateway"], "http_port": ports["http"], "max_input_bytes": 65536},
        "replicas": {"count": 2, "num_cpus": 0.5},
        "controller": {"port": ports["controller"], "metrics_port": ports["controller_metrics"]},
        "front": {"port": ports["front"], "health_port": ports["health"]},
        "telemetry": {
            "otlp_endpoint": otlp_endpoint,
            "metrics_port": ports["ray_metrics"],
            "log_format": "json",
            "log_file": str(folder / "log.jsonl"),
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "config.json"


@pytest.fixture(scope="module")
def operated(
    collector: tuple[Collector, str], pki: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operated]:
    """The running stack; no process of it outlives the tests."""
    folder = tmp_path_factory.mktemp("operated")
    names = ("gateway", "http", "controller", "front", "health", "ray_metrics", "controller_metrics")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    up = ["up", "--config", str(write_config(folder, ports, collector[1]))]
    up += ["--engine-factory", "reasonserve.replica.fake_engine:create", "--client-ca", str(pki / "ca.crt")]
    up += ["--tls-cert", str(pki / "server.crt"), "--tls-key", str(pki / "server.key")]
    soon = {"RAY_metrics_report_interval_ms": "1000", "OTEL_BSP_SCHEDULE_DELAY": "200"}
    environment = os.environ | {"REASONSERVE_STATE": str(folder / "state")} | soon

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "reasonserve", *command]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=180, check=False)

    started = run(*up)
    assert started.returncode == 0, started.stderr
    made = Operated(folder, ports, pki, *collector)
    family = psutil.Process(made.state.host.pid).children(recursive=True)
    yield made
    run("down")
    for process in family:
        if process.is_running():
            process.kill()


@pytest.fixture(scope="module")
def key(operated: Operated) -> str:
    """The key of a tenant that may hold 1024 slots, once both replicas serve it."""
    budget = tenant_pb.RequestBudget(min_tokens=32, default_tokens=64, max_tokens=256)
    tenant = tenant_pb.Tenant(tenant_id="team-a", weight=1, limit_slots=1024, request_budget=budget)
    operated.admin("CreateTenant", tenant_pb.CreateTenantRequest(tenant=tenant))
    leased = {"tenant": "team-a"}

    def everywhere() -> bool:
        samples = operated.page("ray_metrics").get("ray_reasonserve_allowed_slots", [])
        return len([s for s in samples if leased.items() <= s.labels.items() and s.value > 0]) == 2

    wait_for(everywhere)
    return operated.new_key("team-a")[0]


@pytest.fixture(scope="module")
def wait_until() -> Callable[[Callable[[], object]], object]:
    """Lends `wait_for` to tests."""
    return wait_for
