"""What a guaranteed tenant finds at a replica whose rest a noisy one has borrowed."""

import pytest

from reasonserve.errors import BudgetExhaustedError
from reasonserve.replica.admission import Admission, Entry, Lease
from reasonserve.replica.sizing import KvAsk, TenantTerms

POOL, BUFFER, HOME = 1000, 16, 500
ONE = 10 + 100 + BUFFER
"""Slots of a request."""


@pytest.fixture
def admission():
    ranges = {"limit_slots": POOL, "min_tokens": 32, "default_tokens": 100, "max_tokens": 200}
    tenants = (
        TenantTerms(tenant_id="paying", slots=POOL, guaranteed_slots=HOME, **ranges),
        TenantTerms(tenant_id="noisy", slots=POOL, guaranteed_slots=0, **ranges),
    )
    made = Admission(pool_slots=POOL, buffer_tokens=BUFFER)
    lease = Lease(epoch=1, ttl_s=300.0, tenants={t.tenant_id: t for t in tenants}, num_replicas=1)
    made.apply_lease(lease, granted_at=0.0, now=0.0)
    return made


def enter(admission, request_id, tenant, *, now):
    """Returns the request's grant, or None where it waits."""
    entry = Entry(
        request_id=request_id,
        tenant_id=tenant,
        ask=KvAsk(budget_tokens=100),
        prompt_ids=tuple(request_id.encode().ljust(10))[:10],
        max_new_tokens=10_000,
    )
    admission.enter(entry, now=now)
    return admission.take()[0].get(request_id)


def fill(admission, *, now):
    """Has the noisy tenant borrow whatever it gets, and generate 20 tokens/s: a squeeze takes a second."""
    for number in range(20):
        try:
            enter(admission, f"noise-{number}", "noisy", now=now)
        except BudgetExhaustedError:
            break
        admission.progress(f"noise-{number}", 20, now=now + 1.0)
    admission.tick(now=now + 1.0)
    admission.take()


def test_a_burst_finds_room_though_the_engine_is_slower_than_when_the_last_one_came(admission):
    for number in range(3):
        enter(admission, f"{number}", "paying", now=1.0 + number / 2)  # nothing else runs
        admission.leave(f"{number}", now=1.1 + number / 2)
    fill(admission, now=3.0)
    assert POOL - admission.reserved_by("noisy") >= 3 * ONE
    grants = [enter(admission, f"burst-{number}", "paying", now=4.5) for number in range(3)]
    assert all(grant.queued_s == 0.0 for grant in grants)
    admission.check_integrity()


def test_what_a_tenant_holds_within_its_home_share_is_guaranteed_and_what_it_borrows_is_not(admission):
    assert not enter(admission, "loan", "noisy", now=1.0).is_guaranteed
    grants = [enter(admission, f"{number}", "paying", now=1.0) for number in range(4)]
    assert [grant.is_guaranteed for grant in grants] == [True] * (HOME // ONE) + [False]
