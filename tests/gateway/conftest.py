"""A controller that answers from a table, and the real data plane in front of the fake engine."""

import json
import os
import queue
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from reasonserve.api.v1 import generation_service_pb2_grpc as generation_grpc
from reasonserve.api.v1 import lease_service_pb2 as lease_pb
from reasonserve.api.v1 import lease_service_pb2_grpc as lease_grpc
from reasonserve.api.v1 import profile_service_pb2 as profile_pb
from reasonserve.api.v1 import profile_service_pb2_grpc as profile_grpc
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.api.v1 import tenant_service_pb2_grpc as tenant_grpc
from reasonserve.config import TelemetryConfig
from reasonserve.telemetry.settings import node_environment

ADMIN_TOKEN = "admin-token"
POOL_SLOTS = 4096
START_TIMEOUT_S = 90.0


def tenant(tenant_id: str, slots: int) -> tenant_pb.Tenant:
    """Returns a tenant whose limit is its lease."""
    budget = tenant_pb.RequestBudget(min_tokens=32, default_tokens=64, max_tokens=256)
    return tenant_pb.Tenant(tenant_id=tenant_id, limit_slots=slots, request_budget=budget)


TENANTS = {"key-of-acme": tenant("acme", 2048), "key-of-tiny": tenant("tiny", 400)}


def is_admin(context: grpc.ServicerContext) -> bool:
    """Returns whether the caller presents the admin token."""
    return ("authorization", f"Bearer {ADMIN_TOKEN}") in tuple(context.invocation_metadata())


@dataclass
class StubController(
    tenant_grpc.TenantServiceServicer, lease_grpc.LeaseServiceServicer, profile_grpc.ProfileServiceServicer
):
    """Knows the tenants above, leases each its limit, keeps every report."""

    reports: queue.Queue[lease_pb.LeaseRequest] = field(default_factory=queue.Queue)

    def ResolveTenantKey(self, request, context):
        if not is_admin(context):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no admin token")
        if request.key not in TENANTS:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such key")
        return tenant_pb.ResolveTenantKeyResponse(tenant=TENANTS[request.key], key_id="k")

    def GetProfile(self, request, context):
        if not is_admin(context):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no admin token")
        return profile_pb.GetProfileResponse(content=b"{}")

    def Lease(self, request_iterator, context):
        if not is_admin(context):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no admin token")
        for report in request_iterator:
            self.reports.put(report)
            response = lease_pb.LeaseResponse(epoch=1, num_replicas=1)
            response.ttl.FromSeconds(10)
            for known in TENANTS.values():
                response.tenants.append(lease_pb.TenantLease(tenant=known, slots=known.limit_slots))
            yield response

    def settled(self) -> lease_pb.LeaseRequest:
        """Returns the second report from now; a first may be under way, the second tells what was released."""
        with self.reports.mutex:
            self.reports.queue.clear()
        self.reports.get(timeout=15.0)
        return self.reports.get(timeout=15.0)

    def wait_for(
        self, accept: Callable[[lease_pb.LeaseRequest], bool], within_s: float = 15.0
    ) -> lease_pb.LeaseRequest:
        """Returns the next report that is accepted; fails when none comes."""
        while True:
            try:
                report = self.reports.get(timeout=within_s)
            except queue.Empty:
                pytest.fail("no such report came")
            if accept(report):
                return report


@dataclass
class DataPlane:
    """What the tests talk to."""

    endpoint: str
    http: str
    controller: StubController
    trace_file: Path

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.endpoint)

    @staticmethod
    def stub(channel: grpc.Channel) -> generation_grpc.GenerationServiceStub:
        return generation_grpc.GenerationServiceStub(channel)


def free_port() -> int:
    """Returns a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_model(folder: Path) -> Path:
    """Writes the smallest folder that has a fingerprint."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1}))
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
    return folder


@pytest.fixture(scope="session")
def controller() -> Iterator[tuple[StubController, str]]:
    """Yields the stub controller and its endpoint."""
    servicer = StubController()
    server = grpc.server(futures.ThreadPoolExecutor(8))
    tenant_grpc.add_TenantServiceServicer_to_server(servicer, server)
    lease_grpc.add_LeaseServiceServicer_to_server(servicer, server)
    profile_grpc.add_ProfileServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(grace=None).wait()


@pytest.fixture(scope="session")
def data_plane(
    controller: tuple[StubController, str],
    tmp_path_factory: pytest.TempPathFactory,
    until_last_use: Callable[[str], ExitStack],
) -> DataPlane:
    """The running data plane; Ray Serve's proxy listens, as in a cluster."""
    folder = tmp_path_factory.mktemp("plane")
    (folder / "token").write_text(ADMIN_TOKEN)
    port, http_port = free_port(), free_port()
    arguments = {
        "config": {
            "model": "fake",
            "engine": {"pool_slots": POOL_SLOTS},
            "replicas": {"num_cpus": 0.5},
            "gateway": {"port": port, "entrance": "proxy", "http_port": http_port, "max_input_bytes": 65536},
        },
        "controller_endpoint": controller[1],
        "admin_token_file": str(folder / "token"),
        "model_path": str(write_model(folder / "model")),
    }
    trace_file = folder / "spans.jsonl"
    environment = os.environ | node_environment(TelemetryConfig(trace_file=trace_file))
    script = Path(__file__).with_name("serve_main.py")
    with ExitStack() as starting:
        log = starting.enter_context((folder / "log").open("wb"))
        process = starting.enter_context(
            subprocess.Popen(
                [sys.executable, str(script), json.dumps(arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        )
        starting.callback(process.wait, timeout=START_TIMEOUT_S)
        starting.callback(process.stdin.close)
        if not any(line.strip() == b"READY" for line in process.stdout):
            pytest.fail("the data plane did not start:\n" + (folder / "log").read_text()[-4000:])
        until_last_use("data_plane").push(starting.pop_all())
    return DataPlane(f"127.0.0.1:{port}", f"http://127.0.0.1:{http_port}", controller[0], trace_file)
