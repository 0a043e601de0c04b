"""The controller's Prometheus page, asked over HTTP."""

import asyncio
import socket
import urllib.request

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from reasonserve.api.v1 import tenant_service_pb2 as pb
from reasonserve.controller.core import Controller
from reasonserve.controller.metrics import MetricsPage
from reasonserve.errors import StartupError


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def read(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}


@pytest.fixture
def page_of():
    """Opens pages and closes them."""
    opened = []

    def open_page(controller, **how):
        port = free_port()
        opened.append(MetricsPage(controller, host="127.0.0.1", port=port, **{"max_tenants": 64, **how}))
        return port

    yield open_page
    for page in opened:
        page.close()


async def test_it_shows_the_ledger_as_it_is(cluster, page_of):
    for tenant_id, guaranteed in (("a", 20), ("b", 0), ("c", 0)):
        await cluster.add_tenant(tenant_id, guaranteed_slots=guaranteed)
    stream, _ = await cluster.lease("r1", 100, a=(10, 5))
    port = page_of(cluster.controller, max_tenants=2)
    seen = await asyncio.to_thread(read, port)
    assert seen["reasonserve_controller_leads",] == 1
    assert seen["reasonserve_controller_revision",] == cluster.controller.ledger.state.revision
    assert (seen["reasonserve_cluster_replicas",], seen["reasonserve_cluster_capacity_slots",]) == (1, 100)
    assert seen["reasonserve_controller_splits_total",] >= 1
    assert seen["reasonserve_tenant_guaranteed_slots", "a"] == 20
    assert (seen["reasonserve_tenant_reserved_slots", "a"], seen["reasonserve_tenant_wanted_slots", "a"]) == (10, 5)
    assert sum(seen["reasonserve_tenant_leased_slots", label] for label in ("a", "b", "other")) <= 100
    assert seen["reasonserve_tenant_limit_slots", "other"] == 100  # c's: two labels are all there are
    assert ("reasonserve_tenant_limit_slots", "c") not in seen
    stream.cancel()


async def test_one_that_stands_by_says_so_and_no_more(page_of):
    port = page_of(Controller(lease_ttl_s=10.0))
    assert await asyncio.to_thread(read, port) == {("reasonserve_controller_leads",): 0}


async def test_a_taken_port_is_refused(page_of):
    port = page_of(Controller(lease_ttl_s=10.0))
    with pytest.raises(StartupError, match="--metrics-port"):
        MetricsPage(Controller(lease_ttl_s=10.0), host="127.0.0.1", port=port, max_tenants=1)


def test_a_process_counts_its_writes(start):
    port = free_port()
    process = start("--metrics-port", str(port))
    budget = pb.RequestBudget(min_tokens=32, default_tokens=64, max_tokens=128)
    tenant = pb.Tenant(tenant_id="acme", limit_slots=100, request_budget=budget)
    process.call("CreateTenant", pb.CreateTenantRequest(tenant=tenant))
    with pytest.raises(grpc.RpcError):  # refused before it is written
        process.call("CreateTenant", pb.CreateTenantRequest(tenant=tenant))
    seen = read(port)
    assert seen["reasonserve_controller_writes_total", "ok"] == 1
    assert seen["reasonserve_controller_write_seconds_count",] == 1
    assert seen["reasonserve_tenant_limit_slots", "acme"] == 100
