"""LeaseService over a real connection: the six numbered promises of its proto."""

import asyncio
import contextlib
import sqlite3
from unittest.mock import AsyncMock

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.controller.lease_servicer import LeaseServicer


def _slots(response):
    return {lease.tenant.tenant_id: lease.slots for lease in response.tenants}


async def _disconnect(cluster, stream, replica_id):
    """Ends a stream and waits until the controller noticed."""
    stream.cancel()
    async with asyncio.timeout(20):
        while cluster.controller.ledger.leases.replicas[replica_id].connected:
            await asyncio.sleep(0.01)


async def test_a_report_is_answered_with_epoch_ttl_and_slots(cluster):
    await cluster.add_tenant("acme", limit_slots=60)
    stream, answer = await cluster.lease("r0", 100)
    assert _slots(answer) == {"acme": 60}
    assert (answer.ttl.ToMilliseconds(), answer.num_replicas) == (10_000, 1)
    assert answer.epoch > 0
    assert answer.tenants[0].tenant.etag
    assert not answer.tenants[0].tenant.keys
    stream.cancel()


async def test_every_report_is_answered_and_renews(cluster):
    await cluster.add_tenant("acme")
    stream, first = await cluster.lease("r0")
    for _ in range(3):
        cluster.clock.now += 9
        await stream.write(cluster.report("r0", acme=(10, 0)))
        answer = await stream.read()
        assert (answer.epoch, answer.ttl.ToMilliseconds()) == (first.epoch, 10_000)
    stream.cancel()


async def test_a_changed_tenant_is_answered_unasked_with_the_time_that_is_left(cluster):
    await cluster.add_tenant("acme", limit_slots=60)
    stream, _ = await cluster.lease("r0")
    cluster.clock.now += 4
    request = tenant_pb.UpdateTenantRequest(
        tenant=tenant_pb.Tenant(tenant_id="acme", limit_slots=20), update_mask=FieldMask(paths=["limit_slots"])
    )
    await cluster.call(cluster.stubs.tenants.UpdateTenant, request)
    answer = await stream.read()
    assert _slots(answer) == {"acme": 20}
    assert answer.ttl.ToMilliseconds() == 6_000
    stream.cancel()


async def test_demand_elsewhere_is_answered_unasked(cluster):
    await cluster.add_tenant("acme", limit_slots=100)
    first, answer = await cluster.lease("r0", 100)
    assert _slots(answer) == {"acme": 100}
    second, granted = await cluster.lease("r1", 100, acme=(0, 70))
    answer = await first.read()
    assert (_slots(answer), answer.num_replicas) == ({"acme": 30}, 2)
    if _slots(granted) == {"acme": 0}:  # the other had not been told
        granted = await second.read()
    assert _slots(granted) == {"acme": 70}
    first.cancel()
    second.cancel()


async def test_reserved_slots_are_never_leased_to_somebody_else(cluster):
    await cluster.add_tenant("acme", limit_slots=100)
    first, _ = await cluster.lease("r0", 100, acme=(80, 0))
    second, answer = await cluster.lease("r1", 100, acme=(0, 70))
    assert _slots(answer) == {"acme": 20}
    first.cancel()
    second.cancel()


async def test_a_newer_stream_ends_the_older(cluster):
    await cluster.add_tenant("acme")
    older, first = await cluster.lease("r0")
    newer, second = await cluster.lease("r0")
    assert second.epoch > first.epoch
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await older.read()
    assert caught.value.code() is grpc.StatusCode.ABORTED
    await newer.write(cluster.report("r0"))
    assert (await newer.read()).epoch == second.epoch
    assert list(cluster.controller.ledger.leases.replicas) == ["r0"]
    newer.cancel()


async def test_a_lost_stream_holds_its_slots_until_the_lease_lapses(cluster):
    await cluster.add_tenant("acme", limit_slots=100)
    first, _ = await cluster.lease("r0", 100)
    await _disconnect(cluster, first, "r0")
    second, answer = await cluster.lease("r1", 100, acme=(0, 70))
    assert (_slots(answer), answer.num_replicas) == ({"acme": 0}, 2)
    cluster.clock.now += 9.9
    await cluster.controller.expire()
    await second.write(cluster.report("r1", acme=(0, 70)))
    assert _slots(await second.read()) == {"acme": 0}
    cluster.clock.now += 0.1
    await cluster.controller.expire()
    answer = await second.read()
    assert (_slots(answer), answer.num_replicas) == ({"acme": 100}, 1)
    second.cancel()


async def test_a_silent_replica_lapses_and_is_leased_anew_by_its_next_report(cluster):
    await cluster.add_tenant("acme")
    stream, first = await cluster.lease("r0")
    cluster.clock.now += 10
    await cluster.controller.expire()
    assert not cluster.controller.ledger.leases.replicas
    await stream.write(cluster.report("r0"))
    answer = await stream.read()
    assert answer.epoch > first.epoch
    assert _slots(answer) == {"acme": 100}
    for _ in range(3):
        await stream.write(cluster.report("r0"))
        assert (await stream.read()).epoch == answer.epoch
    stream.cancel()


async def test_a_deleted_tenant_keeps_its_room_until_its_requests_finish(cluster):
    await cluster.add_tenant("acme")
    await cluster.add_tenant("other")
    stream, _ = await cluster.lease("r0", 100, acme=(40, 0))
    await cluster.call(cluster.stubs.tenants.DeleteTenant, tenant_pb.DeleteTenantRequest(tenant_id="acme"))
    assert _slots(await stream.read()) == {"other": 60}
    await stream.write(cluster.report("r0"))
    assert _slots(await stream.read()) == {"other": 100}
    stream.cancel()


@pytest.mark.parametrize(
    ("report", "field"),
    [
        ({"replica_id": ""}, "replica_id"),
        ({"replica_id": "r\0"}, "replica_id"),
        ({"capacity_slots": 0}, "capacity_slots"),
        ({"acme": (-1, 0)}, "tenants[0].reserved_slots"),
        ({"acme": (0, -1)}, "tenants[0].wanted_slots"),
    ],
)
async def test_a_wrong_report_is_refused_by_field(cluster, report, field):
    stream = cluster.stubs.leases.Lease(metadata=cluster.admin)
    await stream.write(cluster.report(**{"replica_id": "r0", **report}))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in caught.value.details()


async def test_a_stream_speaks_for_one_replica(cluster):
    stream, _ = await cluster.lease("r0")
    await stream.write(cluster.report("r1"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_streams_end_when_the_controller_shuts_down(cluster):
    stream, _ = await cluster.lease("r0")
    cluster.controller.close()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_replica_that_closes_its_side_ends_the_stream_cleanly(cluster):
    stream, _ = await cluster.lease("r0")
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


class _Leaving:
    """The requests of a client that leaves after its first: they end, and gRPC cancels the handler some steps later."""

    def __init__(self, first, steps):
        self._rest, self._steps, self.handler = [first], steps, None

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self._rest:
            return self._rest.pop()
        self._cancel(self._steps)
        raise StopAsyncIteration

    def _cancel(self, steps):
        if steps:
            asyncio.get_running_loop().call_soon(self._cancel, steps - 1)
        else:
            self.handler.cancel()


@pytest.mark.parametrize("steps", range(8))
async def test_a_client_that_left_is_known_to_have_left_whenever_its_handler_is_cancelled(cluster, steps):
    requests = _Leaving(cluster.report("r0"), steps)
    handler = asyncio.create_task(LeaseServicer(cluster.controller).Lease(requests, AsyncMock()))
    requests.handler = handler
    await asyncio.gather(handler, return_exceptions=True)
    assert not cluster.controller.ledger.leases.replicas["r0"].connected


async def test_while_the_database_fails_renewals_and_reads_go_on_and_nothing_is_granted_twice(cluster, database_path):
    await cluster.add_tenant("acme", limit_slots=100)
    stream, first = await cluster.lease("r0", 100)
    lost, _ = await cluster.lease("r1", 100)
    assert (await stream.read()).num_replicas == 2
    await _disconnect(cluster, lost, "r1")
    with contextlib.closing(sqlite3.connect(database_path)) as connection:
        connection.execute("ALTER TABLE meta RENAME TO away")
        cluster.clock.now += 9
        await stream.write(cluster.report("r0", acme=(0, 100)))
        held = _slots(await stream.read())
        cluster.clock.now += 5
        await stream.write(cluster.report("r0", acme=(0, 100)))
        answer = await stream.read()
        assert (answer.epoch, _slots(answer), answer.num_replicas) == (first.epoch, held, 2)
        assert answer.ttl.ToMilliseconds() == 10_000
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await cluster.add_tenant("other")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        listed = await cluster.call(cluster.stubs.tenants.ListTenants, tenant_pb.ListTenantsRequest())
        assert [tenant.tenant_id for tenant in listed.tenants] == ["acme"]
        connection.execute("ALTER TABLE away RENAME TO meta")
    await stream.write(cluster.report("r0", acme=(0, 100)))
    answer = await stream.read()
    assert (_slots(answer), answer.num_replicas) == ({"acme": 100}, 1)
    stream.cancel()
