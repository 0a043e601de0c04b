"""LeaseService, promises 7 and 8: slots move in two steps, and a replica may be told only what changed."""

import asyncio

import pytest

from reasonserve.api.v1 import lease_service_pb2 as pb
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb


class Replica:
    """A replica that keeps what it is told, as the protocol says."""

    def __init__(self, cluster, replica_id, capacity_slots=100, **fixed):
        self._stream = cluster.stubs.leases.Lease(metadata=cluster.admin)
        self._fixed = {"replica_id": replica_id, "capacity_slots": capacity_slots, **fixed}
        self.slots = {}
        self.answer = None

    async def report(self, *, confirm=True, claims=(), **uses):
        """Reports ``tenant=(reserved, wanted)`` and takes the answer."""
        claims = dict(claims)
        tenants = [
            pb.TenantDemand(tenant_id=t, reserved_slots=r, wanted_slots=w, leased_slots=claims.get(t, 0))
            for t, (r, w) in uses.items()
        ]
        seq = self.answer.seq if self.answer and confirm else 0
        await self._stream.write(pb.LeaseRequest(**self._fixed, tenants=tenants, applied_seq=seq))
        return await self.hear()

    async def hear(self):
        """Takes the next answer."""
        self.answer = await asyncio.wait_for(self._stream.read(), timeout=20)
        if not self.answer.incremental:
            self.slots = {}
        self.slots |= {lease.tenant.tenant_id: lease.slots for lease in self.answer.tenants}
        for tenant_id in self.answer.absent_tenant_ids:
            self.slots.pop(tenant_id, None)
        return self.slots

    def cancel(self):
        self._stream.cancel()


@pytest.fixture
def replica(cluster):
    made = []

    def make(*arguments, **fields):
        made.append(Replica(cluster, *arguments, **fields))
        return made[-1]

    yield make
    for one in made:
        one.cancel()


async def test_slots_are_granted_elsewhere_once_the_smaller_lease_is_confirmed(cluster, replica):
    await cluster.add_tenant("acme", limit_slots=100)
    first, second = replica("r0"), replica("r1")
    assert await first.report(acme=(0, 0)) == {"acme": 100}
    assert await second.report(acme=(0, 70)) == {"acme": 0}
    assert await first.hear() == {"acme": 30}
    # A report that was sent before the answer arrived confirms nothing.
    assert await first.report(acme=(0, 0), confirm=False) == {"acme": 30}
    assert await second.report(acme=(0, 70)) == {"acme": 0}
    assert await first.report(acme=(0, 0)) == {"acme": 30}
    assert await second.hear() == {"acme": 70}


async def test_slots_of_a_silent_replica_are_granted_once_its_lease_has_lapsed(cluster, replica):
    await cluster.add_tenant("acme", limit_slots=100)
    first, second = replica("r0"), replica("r1")
    await first.report(acme=(0, 0))
    cluster.clock.now += 5
    assert await second.report(acme=(0, 70)) == {"acme": 0}
    cluster.clock.now += 4.9
    assert await second.report(acme=(0, 70)) == {"acme": 0}
    cluster.clock.now += 0.1
    assert await second.report(acme=(0, 70)) == {"acme": 100}


async def test_a_report_sent_before_a_lapse_was_noticed_confirms_nothing_and_breaks_nothing(cluster, replica):
    """Two reports are on their way when the lease has lapsed; both confirm an answer from before."""
    await cluster.add_tenant("acme", limit_slots=100)
    one = replica("r0")
    await one.report(acme=(0, 0))
    await one.report(acme=(0, 0))
    before = one.answer
    cluster.clock.now += 10
    assert await one.report(acme=(0, 100)) == {"acme": 100}
    assert (one.answer.epoch > before.epoch, one.answer.seq) == (True, before.seq + 1)
    renewed, one.answer = one.answer, before
    assert await one.report(acme=(0, 100)) == {"acme": 100}
    assert (one.answer.epoch, one.answer.seq) == (renewed.epoch, renewed.seq + 1)
    told = cluster.controller.ledger.leases.replicas["r0"].told
    assert [seq for seq, _ in told] == [before.seq, renewed.seq]


async def test_answers_are_counted_and_say_what_they_answer(cluster, replica):
    await cluster.add_tenant("acme", limit_slots=100)
    one = replica("r0", report_seq=7)
    await one.report()
    assert (one.answer.seq, one.answer.report_seq) == (1, 7)
    await cluster.call(cluster.stubs.tenants.DeleteTenant, tenant_pb.DeleteTenantRequest(tenant_id="acme"))
    await one.hear()
    assert (one.answer.seq, one.answer.report_seq) == (2, 7)


async def test_an_incremental_replica_is_leased_what_it_names_and_told_what_changed(cluster, replica):
    for name in ("acme", "idle", "other"):
        await cluster.add_tenant(name, limit_slots=40)
    one = replica("r0", incremental=True)
    assert await one.report(acme=(0, 10)) == {"acme": 40}
    assert not one.answer.incremental
    assert await one.report(acme=(10, 0)) == {"acme": 40}
    assert (one.answer.incremental, list(one.answer.tenants)) == (True, [])
    assert await one.report(acme=(10, 0), other=(0, 1), nobody=(0, 1)) == {"acme": 40, "other": 40}
    assert [lease.tenant.tenant_id for lease in one.answer.tenants] == ["other"]
    assert list(one.answer.absent_tenant_ids) == ["nobody"]
    assert await one.report(other=(0, 1)) == {"other": 40}
    assert list(one.answer.absent_tenant_ids) == ["acme"]


async def test_a_split_that_has_to_wait_is_made(cluster, replica):
    """The budget of processor time is overdrawn; the first answer comes once it has filled again."""
    await cluster.add_tenant("acme", limit_slots=100)
    splitter = cluster.controller.splitter
    splitter._pace.spend(0.3, asyncio.get_running_loop().time())
    splits = splitter.stats.splits
    one, two = replica("r0"), replica("r1")
    await asyncio.gather(one.report(acme=(0, 10)), two.report(acme=(0, 10)))
    assert splitter.stats.splits > splits
    assert one.slots["acme"] + two.slots["acme"] <= 100
    assert not cluster.controller.ledger.leases.dirty
