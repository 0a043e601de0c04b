"""Queue limits of a tenant's own: from the lease to who may wait, and for how long."""

import asyncio

import pytest
from google.protobuf.duration_pb2 import Duration

from reasonserve.api.v1 import lease_service_pb2 as pb
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.errors import BudgetExhaustedError
from reasonserve.replica.admission import Admission, Entry, Lease
from reasonserve.replica.desk import Desk
from reasonserve.replica.fake_engine import FakeEngine
from reasonserve.replica.lease_messages import to_lease
from reasonserve.replica.sizing import KvAsk, QueueLimits, TenantTerms

OWN = {"a": QueueLimits(requests=1, wait_s=30.0), "b": QueueLimits(requests=2, wait_s=60.0)}


def _lease(queues):
    """Two tenants with 400 slots each and nothing guaranteed."""
    ranges = {"min_tokens": 32, "default_tokens": 100, "max_tokens": 200, "guaranteed_slots": 0, "limit_slots": 400}
    terms = {t: TenantTerms(tenant_id=t, slots=400, queue=queue, **ranges) for t, queue in queues.items()}
    return Lease(epoch=1, ttl_s=300.0, tenants=terms, num_replicas=2)


def _entry(request_id, **more):
    """A request that takes 126 slots; its tenant is the first letter of its name."""
    values = {"ask": KvAsk(budget_tokens=100), "prompt_ids": (hash(request_id),) * 10, "max_new_tokens": 1000} | more
    return Entry(request_id=request_id, tenant_id=request_id[0], **values)


def _busy(queues):
    """An admission on which each tenant's first request, 390 slots, ends in 200 / 30 s and in 50 / 80 s."""
    made = Admission(pool_slots=1000, buffer_tokens=16)
    made.apply_lease(_lease(queues), granted_at=0.0, now=0.0)
    for name, output_tokens in (("a0", 90), ("b0", 240)):
        made.enter(_entry(name, ask=KvAsk(method="full"), prompt_ids=(1,) * 100, max_new_tokens=290), now=1.0)
        made.progress(name, output_tokens, now=4.0)
    return made


def _refused(admission, request_id):
    with pytest.raises(BudgetExhaustedError) as caught:
        admission.enter(_entry(request_id), now=4.0)
    return caught.value.retry_after_s


def test_each_tenant_is_refused_at_its_own_number_and_told_its_own_time():
    admission = _busy(OWN)
    for name in ("a1", "b1", "b2"):
        admission.enter(_entry(name), now=4.0)
    assert _refused(admission, "a2") == pytest.approx(200 / 30)
    assert _refused(admission, "b3") == pytest.approx(50 / 80)
    assert {use.tenant_id: use.queued_requests for use in admission.use(now=4.0)} == {"a": 1, "b": 2}
    admission.check_integrity()


def test_a_wait_that_is_longer_than_the_tenants_own_is_not_begun():
    admission = _busy({"a": QueueLimits(wait_s=6.6), "b": QueueLimits(wait_s=0.7)})
    assert _refused(admission, "a1") == pytest.approx(200 / 30)
    admission.enter(_entry("b1"), now=4.0)
    assert admission.patience_s("b1") == 0.7


def test_the_longest_wait_is_the_tenants_or_the_clients_whichever_ends_first():
    admission = _busy(OWN)
    for name, patience_s, expected in (("a1", None, 30.0), ("b1", 40.0, 40.0), ("b2", 90.0, 60.0)):
        admission.enter(_entry(name, patience_s=patience_s), now=4.0)
        assert admission.patience_s(name) == expected


def test_the_next_lease_moves_both_limits():
    admission = _busy(OWN)
    admission.enter(_entry("a1"), now=4.0)
    _refused(admission, "a2")
    more = {"a": QueueLimits(requests=2, wait_s=45.0), "b": QueueLimits(requests=0)}
    admission.apply_lease(_lease(more), granted_at=4.0, now=4.0)
    admission.enter(_entry("a2"), now=4.0)
    assert admission.patience_s("a2") == 45.0
    _refused(admission, "a3")
    _refused(admission, "b1")


async def test_a_wait_ends_at_the_tenants_own_longest_and_anothers_goes_on():
    admission = _busy({"a": QueueLimits(wait_s=0.05), "b": QueueLimits(wait_s=300.0)})
    desk = Desk(admission=admission, engine=FakeEngine(), clock=lambda: 10.6)
    for name in ("a0", "b0"):
        admission.progress(name, 289, now=10.6)  # its last token is due, so that either may wait
    waiting = asyncio.create_task(desk.enter(_entry("b1")))
    with pytest.raises(BudgetExhaustedError) as caught:
        await desk.enter(_entry("a1"))
    assert caught.value.retry_after_s == pytest.approx(0.1)  # the least that a client is told
    assert not waiting.done()
    desk.leave("b0")
    assert (await waiting).slots == 126


LIMITS = [
    ({}, QueueLimits(requests=8, wait_s=5.0)),
    ({"max_requests": 1024}, QueueLimits(requests=1024, wait_s=5.0)),
    ({"max_requests": 2}, QueueLimits(requests=2, wait_s=5.0)),
    ({"max_wait": Duration(nanos=1_000_000)}, QueueLimits(requests=8, wait_s=0.001)),
    ({"max_requests": 3, "max_wait": Duration(seconds=3600)}, QueueLimits(requests=3, wait_s=3600.0)),
    ({"max_wait": Duration()}, QueueLimits(requests=8, wait_s=5.0)),
]


@pytest.mark.parametrize(("asked", "expected"), LIMITS)
def test_a_lease_has_the_tenants_limits_and_the_replicas_for_the_others(asked, expected):
    budget = tenant_pb.RequestBudget(min_tokens=32, default_tokens=64, max_tokens=128)
    ours = tenant_pb.Tenant(tenant_id="a", queue=tenant_pb.QueueLimits(**asked), request_budget=budget)
    plain = tenant_pb.Tenant(tenant_id="b", request_budget=budget)  # as a controller of an earlier release says it
    response = pb.LeaseResponse(tenants=[pb.TenantLease(tenant=tenant, slots=9) for tenant in (ours, plain)])
    default = QueueLimits(requests=8, wait_s=5.0)
    assert {t: terms.queue for t, terms in to_lease(response, default).tenants.items()} == {"a": expected, "b": default}


def test_a_tenant_may_queue_where_the_replica_lets_nobody():
    tenant = tenant_pb.Tenant(tenant_id="a", queue=tenant_pb.QueueLimits(max_requests=2))
    response = pb.LeaseResponse(tenants=[pb.TenantLease(tenant=tenant, slots=9)])
    nobody = QueueLimits(requests=0, wait_s=1.0)
    assert to_lease(response, nobody).tenants["a"].queue == QueueLimits(requests=2, wait_s=1.0)
