"""The lease stream against a gRPC server whose lease, and death, the test decides."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest

from reasonserve.api.v1 import lease_service_pb2 as pb
from reasonserve.api.v1 import lease_service_pb2_grpc as pb_grpc
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.errors import UnavailableError
from reasonserve.replica import lease_client
from reasonserve.replica.admission import Admission, Entry
from reasonserve.replica.desk import Desk
from reasonserve.replica.fake_engine import FakeEngine
from reasonserve.replica.lease_client import LeaseClient, ReplicaIdentity
from reasonserve.replica.sizing import KvAsk, QueueLimits

pytestmark = pytest.mark.timeout(30)


class Controller(pb_grpc.LeaseServiceServicer):
    """Answers each report with its lease; ``broken`` ends streams after their first answer, ``refuses`` before it."""

    def __init__(self, ttl_s):
        self.ttl_s = ttl_s
        self.slots = 500
        self.broken = self.refuses = False
        self.streams = 0
        self.seq = 0
        self.tokens = set()
        self.reports = asyncio.Queue()

    async def Lease(self, request_iterator, context):
        self.streams += 1
        self.seq = 0
        if self.refuses:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        self.tokens |= {value for key, value in context.invocation_metadata() if key == "authorization"}
        async for report in request_iterator:
            await self.reports.put(report)
            self.seq += 1
            response = pb.LeaseResponse(epoch=self.streams, num_replicas=2, seq=self.seq)
            response.ttl.FromNanoseconds(int(self.ttl_s * 1e9))
            budget = tenant_pb.RequestBudget(min_tokens=32, default_tokens=64, max_tokens=128)
            tenant = tenant_pb.Tenant(tenant_id="a", limit_slots=1000, request_budget=budget)
            response.tenants.append(pb.TenantLease(tenant=tenant, slots=self.slots))
            yield response
            if self.broken:
                await context.abort(grpc.StatusCode.ABORTED, "gone")

    async def report(self, accept):
        while not accept(report := await self.reports.get()):
            pass
        return report


@asynccontextmanager
async def running(ttl_s, client_class=LeaseClient):
    controller = Controller(ttl_s)
    server = grpc.aio.server()
    pb_grpc.add_LeaseServiceServicer_to_server(controller, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    engine = FakeEngine()
    admission = Admission(pool_slots=4096, buffer_tokens=16)
    desk = Desk(admission=admission, engine=engine, clock=lambda: 0.0)
    client = client_class(
        endpoint=f"127.0.0.1:{port}",
        token="secret",
        identity=ReplicaIdentity(replica_id="r1", model="fake", handshake=engine.handshake),
        admission=admission,
        desk=desk,
        load=engine.load,
        queue=QueueLimits(),
    )
    client.start()
    try:
        yield controller, admission, client
    finally:
        await client.stop()
        await server.stop(None)


async def until_leased(admission, slots, now=0.0):
    while True:
        try:
            if admission.allowed_slots("a", now=now) == slots:
                return
        except UnavailableError:
            pass
        await asyncio.sleep(0.01)


async def test_reports_who_it_is_and_puts_the_lease_in_force():
    async with running(ttl_s=300) as (controller, admission, client):
        report = await controller.report(lambda _: True)
        assert (report.replica_id, report.model, report.capacity_slots) == ("r1", "fake", 16384)
        assert report.profile_id == "fake-profile"
        assert report.bytes_per_slot > 0
        await until_leased(admission, 500)
        assert controller.tokens == {"Bearer secret"}
        client.check_health()


async def test_a_change_of_use_is_reported_without_waiting_for_the_renewal():
    async with running(ttl_s=300) as (controller, admission, client):
        await until_leased(admission, 500)
        ask = KvAsk(budget_tokens=64)
        entry = Entry(request_id="x", tenant_id="a", ask=ask, prompt_ids=(1,) * 10, max_new_tokens=200)
        admission.enter(entry, now=0.0)
        client.use_changed()
        report = await controller.report(lambda r: r.tenants)
        assert [(t.tenant_id, t.reserved_slots, t.active_requests) for t in report.tenants] == [("a", 90, 1)]
        admission.leave("x", now=0.0)
        client.use_changed()
        assert (await controller.report(lambda r: r.tenants[0].reserved_slots == 0)).tenants[0].active_requests == 0


async def test_renews_unasked_and_takes_a_new_split():
    async with running(ttl_s=0.6) as (controller, admission, _):
        await until_leased(admission, 500)
        controller.slots = 200
        await until_leased(admission, 200)
        assert controller.streams == 1


async def test_renewals_come_sooner_by_chance(monkeypatch):
    drawn = []

    def soonest(least, most):
        drawn.append((least, most))
        return 0.0

    monkeypatch.setattr(lease_client.random, "uniform", soonest)
    async with running(ttl_s=300) as (controller, *_):
        for _ in range(3):  # by the clock alone the second would take 80 seconds at least
            await controller.report(lambda _: True)
    assert set(drawn) == {(1 - lease_client.RENEWAL_JITTER, 1)}
    assert 0 < lease_client.RENEWAL_JITTER < 1


async def test_a_broken_stream_is_opened_anew_and_the_lease_stays():
    async with running(ttl_s=300) as (controller, admission, client):
        await until_leased(admission, 500)
        controller.broken = True
        client.use_changed()
        while controller.streams < 3:
            await asyncio.sleep(0.01)
            assert admission.allowed_slots("a", now=0.0) == 500
            client.check_health()
            client.use_changed()


async def test_a_stream_that_ends_while_a_report_is_made_is_opened_anew():
    async with running(ttl_s=300) as (controller, admission, client):
        await until_leased(admission, 500)
        prompt, controller.broken = client._load, True

        async def slow():
            await asyncio.sleep(0.1)  # meanwhile the stream ends, and what was to be written meets an ended call
            return await prompt()

        client._load = slow
        controller.refuses = True
        client.use_changed()
        while controller.streams < 3:
            await asyncio.sleep(0.01)
            client.check_health()
        controller.refuses, controller.broken, controller.slots = False, False, 200
        await until_leased(admission, 200)


async def test_an_ended_task_is_ill_health():
    async with running(ttl_s=300) as (_, _, client):
        client.check_health()
        await client.stop()
        with pytest.raises(UnavailableError):
            client.check_health()


class BreaksWhenStopped(LeaseClient):
    """Its first stream breaks at the moment at which it is stopped."""

    breaks = True

    async def _hold(self, call, responses):
        try:
            await super()._hold(call, responses)
        except asyncio.CancelledError:
            if self.breaks:
                self.breaks = False
                raise UnavailableError("The stream broke.") from None
            raise


async def test_a_stop_is_heard_though_the_stream_breaks_at_that_moment():
    async with running(ttl_s=300, client_class=BreaksWhenStopped) as (_, admission, client):
        await until_leased(admission, 500)
        async with asyncio.timeout(5):
            await client.stop()


async def test_each_answer_is_confirmed_and_one_that_took_slots_at_once():
    async with running(ttl_s=300) as (controller, admission, client):
        first = await controller.report(lambda _: True)
        assert first.HasField("applied_seq")
        assert first.applied_seq == 0
        await until_leased(admission, 500)
        controller.slots = 200  # the next answer takes slots away
        client.use_changed()
        assert (await controller.report(lambda _: True)).applied_seq == 1
        assert (await controller.report(lambda _: True)).applied_seq == 2  # long before the renewal


async def test_a_new_stream_claims_what_the_last_lease_still_allows():
    async with running(ttl_s=300) as (controller, admission, client):
        assert list((await controller.report(lambda _: True)).tenants) == []
        await until_leased(admission, 500)
        controller.broken = True
        client.use_changed()
        again = await controller.report(lambda r: r.applied_seq == 0)
        assert [(t.tenant_id, t.leased_slots, t.reserved_slots) for t in again.tenants] == [("a", 500, 0)]


async def test_queue_and_squeezes_are_reported():
    async with running(ttl_s=300) as (controller, admission, client):
        await until_leased(admission, 500)
        ask = {"tenant_id": "a", "ask": KvAsk(method="full"), "prompt_ids": (1,) * 10}
        admission.enter(Entry(request_id="x", max_new_tokens=480, **ask), now=0.0)
        admission.enter(Entry(request_id="y", max_new_tokens=100, **ask), now=0.0)
        client.use_changed()
        (told,) = (await controller.report(lambda r: r.tenants and r.tenants[0].queued_requests)).tenants
        assert (told.reserved_slots, told.wanted_slots, told.queued_requests, told.squeezed_slots) == (490, 110, 1, 0)


def _answer(report_seq, ttl_s):
    response = pb.LeaseResponse(epoch=1, num_replicas=2, seq=report_seq, report_seq=report_seq)
    response.ttl.FromNanoseconds(int(ttl_s * 1e9))
    tenant = tenant_pb.Tenant(tenant_id="a", limit_slots=1000)
    response.tenants.append(pb.TenantLease(tenant=tenant, slots=500))
    return response


async def test_a_lease_counts_from_the_report_that_it_answers():
    """An answer that was long on its way extends nothing; one without a new report shortens nothing."""
    async with running(ttl_s=300) as (_, admission, client):
        await client.stop()
        client._sent = {1: 10.0, 2: 20.0, 3: 30.0}
        for report_seq, ttl_s, lapses_at in ((1, 8, 18), (2, 8, 28), (2, 5, 28), (3, 8, 38)):
            client._apply(_answer(report_seq, ttl_s))
            assert admission.leases_in_force(now=lapses_at - 0.1)
            assert not admission.leases_in_force(now=lapses_at + 0.1)
