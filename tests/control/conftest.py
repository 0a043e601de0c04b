"""A real gRPC server around a real SQLite file; only the clock is ours."""

from dataclasses import dataclass

import grpc
import pytest
from hypothesis import HealthCheck, settings

from reasonserve import controller_client
from reasonserve.api.v1 import lease_service_pb2 as lease_pb
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.controller.core import Controller
from reasonserve.controller.main import build_server
from reasonserve.controller.store import Store

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

TOKEN = "an-admin-token-of-this-test"
TTL_S = 10.0


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 1000.0

    def __call__(self):
        return self.now


@dataclass
class Cluster:
    """A served controller and what a test needs to talk to it."""

    controller: Controller
    clock: Clock
    channel: grpc.aio.Channel
    stubs: controller_client.Stubs
    admin: tuple

    async def call(self, method, request):
        return await method(request, metadata=self.admin)

    async def add_tenant(self, tenant_id, **fields):
        values = {"limit_slots": 100, "weight": 1, **fields}
        budget = tenant_pb.RequestBudget(min_tokens=32, default_tokens=64, max_tokens=128)
        tenant = tenant_pb.Tenant(tenant_id=tenant_id, request_budget=budget, **values)
        response = await self.call(self.stubs.tenants.CreateTenant, tenant_pb.CreateTenantRequest(tenant=tenant))
        return response.tenant

    async def lease(self, replica_id, capacity_slots=100, **uses):
        """Opens a stream with a first report and returns it with the first answer."""
        stream = self.stubs.leases.Lease(metadata=self.admin)
        await stream.write(self.report(replica_id, capacity_slots, **uses))
        return stream, await stream.read()

    @staticmethod
    def report(replica_id, capacity_slots=100, **uses):
        """A report; uses are ``tenant=(reserved, wanted)``."""
        tenants = [
            lease_pb.TenantDemand(tenant_id=t, reserved_slots=reserved, wanted_slots=wanted)
            for t, (reserved, wanted) in uses.items()
        ]
        return lease_pb.LeaseRequest(replica_id=replica_id, capacity_slots=capacity_slots, tenants=tenants)


@pytest.fixture
def database_path(tmp_path):
    return tmp_path / "controller.db"


@pytest.fixture
def database_url(database_path):
    return f"sqlite:///{database_path}"


@pytest.fixture
async def cluster(database_url):
    clock, store = Clock(), Store(database_url)
    controller = Controller(store, lease_ttl_s=TTL_S, clock=clock)
    server, _ = build_server(controller, TOKEN)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with controller_client.open_channel(f"127.0.0.1:{port}") as channel:
        yield Cluster(
            controller, clock, channel, controller_client.stubs(channel), controller_client.admin_metadata(TOKEN)
        )
    controller.close()
    await server.stop(None)
    controller.ledger.check_integrity()
    store.close()
