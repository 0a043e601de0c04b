"""Guarantees against capacity: refused, or accepted with a warning that stays visible; and what tenants use."""

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from reasonserve import errors, status
from reasonserve.api.v1 import cluster_service_pb2 as cluster_pb
from reasonserve.api.v1 import tenant_service_pb2 as pb
from reasonserve.controller.ledger import Ledger
from reasonserve.controller.records import RequestBudget, Tenant

BUDGET = pb.RequestBudget(min_tokens=32, default_tokens=64, max_tokens=128)


async def _create(cluster, guaranteed, *, allow):
    tenant = pb.Tenant(tenant_id="big", guaranteed_slots=guaranteed, limit_slots=guaranteed, request_budget=BUDGET)
    request = pb.CreateTenantRequest(tenant=tenant, allow_overcommit=allow)
    return await cluster.call(cluster.stubs.tenants.CreateTenant, request)


async def _raise(cluster, guaranteed, *, allow):
    request = pb.UpdateTenantRequest(
        tenant=pb.Tenant(tenant_id="acme", guaranteed_slots=guaranteed, limit_slots=guaranteed),
        update_mask=FieldMask(paths=["guaranteed_slots", "limit_slots"]),
        allow_overcommit=allow,
    )
    return await cluster.call(cluster.stubs.tenants.UpdateTenant, request)


async def test_overcommit_is_refused_unless_it_is_allowed(cluster):
    await cluster.add_tenant("acme", guaranteed_slots=60)
    stream, _ = await cluster.lease("r0", 100)
    for write in (_create(cluster, 41, allow=False), _raise(cluster, 101, allow=False)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await write
        error = status.from_rpc_error(caught.value)
        assert isinstance(error, errors.PreconditionError)
        assert "allow_overcommit" in error.message
    assert sorted(cluster.controller.ledger.state.tenants) == ["acme"]
    assert (await _raise(cluster, 100, allow=True)).warning == ""
    response = await _raise(cluster, 150, allow=True)
    assert "150 slots, 50 more than the 100" in response.warning
    assert "160 slots" in (await _create(cluster, 10, allow=True)).warning
    seen = await cluster.call(cluster.stubs.cluster.GetClusterStatus, cluster_pb.GetClusterStatusRequest())
    assert "160 slots" in seen.warning
    stream.cancel()


def _tenant(guaranteed):
    budget = RequestBudget(min_tokens=32, default_tokens=64, max_tokens=64)
    return Tenant(
        tenant_id="a",
        display_name="",
        weight=1,
        guaranteed_slots=guaranteed,
        limit_slots=guaranteed,
        request_budget=budget,
    )


def test_a_declared_capacity_binds_before_any_replica_is_there():
    ledger = Ledger(lease_ttl_s=10, now=0, declared_slots=100)
    with pytest.raises(errors.PreconditionError):
        ledger.create_tenant(_tenant(101))
    ledger.apply(ledger.create_tenant(_tenant(100)))
    assert ledger.warning == ""
    assert Ledger(lease_ttl_s=10, now=0).create_tenant(_tenant(101)).events


async def test_usage_is_summed_over_the_cluster_and_told_per_replica(cluster):
    await cluster.add_tenant("acme", guaranteed_slots=10, limit_slots=90)
    await cluster.add_tenant("idle", limit_slots=0)
    first, _ = await cluster.lease("r1", 80, acme=(30, 5))
    second, _ = await cluster.lease("r0", 80, acme=(20, 0))
    listed = await cluster.call(cluster.stubs.tenants.ListTenantUsage, pb.ListTenantUsageRequest())
    acme, idle = listed.usage
    assert (acme.tenant_id, acme.reserved_slots, acme.wanted_slots, acme.leased_slots) == ("acme", 50, 5, 90)
    assert (acme.guaranteed_slots, acme.limit_slots) == (10, 90)
    assert [(part.replica_id, part.reserved_slots, part.wanted_slots) for part in acme.replicas] == [
        ("r0", 20, 0),
        ("r1", 30, 5),
    ]
    assert sum(part.leased_slots for part in acme.replicas) == acme.leased_slots
    assert (idle.tenant_id, list(idle.replicas)) == ("idle", [])
    request = pb.ListTenantUsageRequest(tenant_id="acme")
    assert list((await cluster.call(cluster.stubs.tenants.ListTenantUsage, request)).usage) == [acme]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cluster.call(cluster.stubs.tenants.ListTenantUsage, pb.ListTenantUsageRequest(tenant_id="nobody"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    first.cancel()
    second.cancel()
