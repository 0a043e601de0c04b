"""One stack with the real engine for all tests of this folder, started and ended by the command line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest

from reasonserve.api.v1 import cluster_service_pb2 as cluster_pb
from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.cli import client
from reasonserve.errors import UnavailableError
from reasonserve.stack.paths import StatePaths
from reasonserve.stack.state import StackState

UP_TIMEOUT_S = 400
DEADLINE_S = 60.0
BUDGET = tenant_pb.RequestBudget(min_tokens=32, default_tokens=128, max_tokens=1024)


def wait_until(check: Callable[[], bool], within_s: float = DEADLINE_S) -> None:
    """Waits for a condition; the test fails when it is not met in time."""
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, f"the condition was not met within {within_s} s"
        time.sleep(0.02)


@dataclass(frozen=True)
class Stack:
    """A running stack and what a test does with it.

    Attributes:
        state_dir: Where its state lies.
    """

    state_dir: Path

    @property
    def state(self) -> StackState:
        state = StackState.read(StatePaths(self.state_dir).state_file)
        assert state is not None
        return state

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "reasonserve", *args]

    def environment(self, **more: str) -> dict[str, str]:
        return os.environ | {"REASONSERVE_STATE": str(self.state_dir)} | more

    def create_tenant(self, tenant_id: str, limit_slots: int) -> str:
        """Creates a tenant with a key and returns the key once a replica serves it."""
        tenant = tenant_pb.Tenant(tenant_id=tenant_id, weight=1, limit_slots=limit_slots, request_budget=BUDGET)
        with client.admin(None, None, self.state_dir) as admin:
            admin.call(admin.services.tenants.CreateTenant, tenant_pb.CreateTenantRequest(tenant=tenant))
            request = tenant_pb.CreateTenantKeyRequest(tenant_id=tenant_id)
            key = str(admin.call(admin.services.tenants.CreateTenantKey, request).key)
        wait_until(lambda: self._serves(key))
        return key

    def _serves(self, key: str) -> bool:
        try:
            with self.gateway(key) as gateway:
                gateway.generate(pb.GenerateRequest(prompt="a", sampling=pb.SamplingOptions(max_new_tokens=1)))
        except UnavailableError:
            return False
        return True

    def gateway(self, key: str):  # type: ignore[no-untyped-def]  # a context manager of client.Gateway
        return client.gateway(self.state.gateway_endpoint, key)

    def stub(self) -> client.pb_grpc.GenerationServiceStub:
        """Returns a bare stub, for tests of what is on the wire."""
        return client.pb_grpc.GenerationServiceStub(grpc.insecure_channel(self.state.gateway_endpoint))

    def tenant(self, tenant_id: str) -> tenant_pb.Tenant:
        with client.admin(None, None, self.state_dir) as admin:
            request = tenant_pb.GetTenantRequest(tenant_id=tenant_id)
            return admin.call(admin.services.tenants.GetTenant, request).tenant

    def cluster(self) -> cluster_pb.GetClusterStatusResponse:
        with client.admin(None, None, self.state_dir) as admin:
            return admin.call(admin.services.cluster.GetClusterStatus, cluster_pb.GetClusterStatusRequest())

    def has_replica(self) -> bool:
        """Returns whether the controller answers and holds a replica's lease."""
        try:
            return bool(self.cluster().replicas)
        except UnavailableError:
            return False

    def used_slots(self) -> int:
        """Slots that running requests hold, as the engine counts them."""
        return sum(replica.used_slots for replica in self.cluster().replicas)

    def tenant_status(self, tenant_id: str) -> cluster_pb.TenantStatus:
        return next(tenant for tenant in self.cluster().tenants if tenant.tenant_id == tenant_id)


def free_ports(count: int) -> list[int]:
    """Returns ports that were free a moment ago, all different."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@pytest.fixture
def three_ports() -> int:
    """The first of three ports in a row that were free a moment ago."""
    for first in free_ports(16):
        with ExitStack() as held, suppress(OSError):
            for port in range(first, first + 3):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise AssertionError("no three free ports in a row")


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., None]:
    """Lends `wait_until` to tests."""
    return wait_until


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, until_last_use: Callable[[str], ExitStack]) -> Stack:
    """The stack: built-in model, a pool of 4096 slots, a reasoning parser. Leaves no process."""
    made = Stack(tmp_path_factory.mktemp("state"))
    gateway, http, controller = free_ports(3)
    config = tmp_path_factory.mktemp("config") / "config.yaml"
    sections = {
        "engine": {"pool_slots": 4096, "reasoning_parser": "qwen3"},
        "gateway": {"port": gateway, "http_port": http},
        "controller": {"port": controller, "lease_ttl_s": 30.0},
    }
    config.write_text(json.dumps(sections))
    up = made.command("up", "--config", str(config))
    done = subprocess.run(up, env=made.environment(), capture_output=True, text=True, timeout=UP_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    host = psutil.Process(made.state.host.pid)
    until_last_use("stack").callback(end, made, [host, *host.children(recursive=True)])
    return made


def end(made: Stack, family: list[psutil.Process]) -> None:
    """Ends a stack; fails when a process of it outlives that."""
    subprocess.run(made.command("down"), env=made.environment(), check=True, timeout=120, capture_output=True)
    left = [process for process in family if process.is_running()]
    for process in left:
        process.send_signal(signal.SIGKILL)
    assert left == []
