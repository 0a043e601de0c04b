"""WatchCluster and its journal: every change once and in order, and a way back after any gap."""

import asyncio

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonserve.api.v1 import cluster_service_pb2 as pb
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.controller.journal import Journal
from reasonserve.controller.records import Change, ReplicaGone


def _change(revision):
    return Change(revision, (ReplicaGone(f"r{revision}"),))


@given(st.integers(0, 50), st.integers(0, 12), st.integers(1, 8), st.integers(0, 70))
def test_the_journal_tells_all_that_follows_or_that_it_cannot(first, count, kept, asked):
    journal = Journal(first, max_changes=kept)
    for i in range(count):
        journal.append(_change(first + 1 + i))
        journal.append(Change(first + 1 + i, ()))
    told = journal.since(asked)
    newest = first + count
    if asked > newest or asked < newest - min(kept, count):
        assert told is None
    else:
        assert [change.revision for change in told] == list(range(asked + 1, newest + 1))


def _watch(cluster, after_revision=0):
    return cluster.stubs.cluster.WatchCluster(
        pb.WatchClusterRequest(after_revision=after_revision), metadata=cluster.admin
    )


def _kinds(response):
    return [event.WhichOneof("event") for event in response.events]


async def _read(stream):
    return await asyncio.wait_for(stream.read(), timeout=20)


async def test_a_watch_begins_with_the_status_and_goes_on_with_each_change(cluster):
    await cluster.add_tenant("before")
    stream = _watch(cluster)
    first = await _read(stream)
    assert [tenant.tenant_id for tenant in first.status.tenants] == ["before"]
    assert first.revision == first.status.revision == cluster.controller.ledger.state.revision
    created = await cluster.add_tenant("acme")
    key = await cluster.call(cluster.stubs.tenants.CreateTenantKey, tenant_pb.CreateTenantKeyRequest(tenant_id="acme"))
    await cluster.call(
        cluster.stubs.tenants.RevokeTenantKey, tenant_pb.RevokeTenantKeyRequest(tenant_id="acme", key_id=key.key_id)
    )
    await cluster.call(cluster.stubs.tenants.DeleteTenant, tenant_pb.DeleteTenantRequest(tenant_id="acme"))
    lease, _ = await cluster.lease("r0")
    seen = [await _read(stream) for _ in range(5)]
    assert [_kinds(response) for response in seen] == [
        ["tenant_put"],
        ["key_created"],
        ["key_revoked"],
        ["tenant_deleted"],
        ["replica_joined"],
    ]
    assert [response.revision for response in seen] == [first.revision + i for i in range(1, 6)]
    assert seen[0].events[0].tenant_put == created
    assert seen[2].events[0].key_revoked == pb.TenantKeyRef(tenant_id="acme", key_id=key.key_id)
    assert key.key not in str(seen)
    lease.cancel()
    stream.cancel()


async def test_a_watch_resumes_after_the_revision_it_names(cluster):
    for name in ("a", "b", "c"):
        await cluster.add_tenant(name)
    stream = _watch(cluster, after_revision=1)
    assert [(await _read(stream)).events[0].tenant_put.tenant_id for _ in range(2)] == ["b", "c"]
    stream.cancel()
    stream = _watch(cluster, after_revision=3)
    waiting = asyncio.ensure_future(stream.read())
    await cluster.add_tenant("d")
    assert (await asyncio.wait_for(waiting, 20)).events[0].tenant_put.tenant_id == "d"
    stream.cancel()


async def test_a_revision_that_never_was_begins_anew(cluster):
    await cluster.add_tenant("acme")
    stream = _watch(cluster, after_revision=99)
    response = await _read(stream)
    assert response.HasField("status")
    assert response.revision == 1
    stream.cancel()


async def test_a_negative_revision_is_refused(cluster):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _read(_watch(cluster, after_revision=-1))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_watch_ends_when_the_controller_shuts_down(cluster):
    stream = _watch(cluster)
    await _read(stream)
    cluster.controller.close()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _read(stream)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
