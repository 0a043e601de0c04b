"""Admission: examples of each rule."""

import pytest

from reasonserve.errors import BudgetExhaustedError, InvalidRequestError, UnavailableError
from reasonserve.replica.admission import Admission, Entry, Lease
from reasonserve.replica.prefixes import BLOCK_TOKENS
from reasonserve.replica.pressure import GROW_AFTER_S
from reasonserve.replica.sizing import KvAsk, QueueLimits, TenantTerms

POOL, BUFFER, TTL = 1000, 16, 10.0


def terms(tenant_id="a", slots=400, guaranteed=300, limit=600, **more):
    ranges = {"min_tokens": 32, "default_tokens": 100, "max_tokens": 200}
    names = {"tenant_id": tenant_id, "slots": slots, "guaranteed_slots": guaranteed, "limit_slots": limit}
    return TenantTerms(**ranges | names | more)


def leased(*tenants, num_replicas=2, pool=POOL, epoch=1):
    made = Admission(pool_slots=pool, buffer_tokens=BUFFER)
    made.apply_lease(lease(*tenants, num_replicas=num_replicas, epoch=epoch), granted_at=0.0, now=0.0)
    return made


def lease(*tenants, num_replicas=2, epoch=1):
    return Lease(epoch=epoch, ttl_s=TTL, tenants={t.tenant_id: t for t in tenants}, num_replicas=num_replicas)


class Door:
    """Sends requests to an admission and keeps what comes out; each prompt is one of its own."""

    def __init__(self, admission):
        self.admission = admission
        self.granted = {}
        self.budgets = {}
        self.prompts = 0

    def enter(
        self, request_id="r", tenant="a", *, prompt=10, max_new=10_000, now=1.0, patience_s=None, ids=None, **ask
    ):
        self.prompts += 1
        entry = Entry(
            request_id=request_id,
            tenant_id=tenant,
            ask=KvAsk(**ask),
            prompt_ids=ids or (self.prompts,) * prompt,
            max_new_tokens=max_new,
            patience_s=patience_s,
        )
        try:
            self.admission.enter(entry, now=now)
        finally:
            self.look()
        return self.granted.get(request_id)

    def leave(self, request_id, now=2.0):
        assert self.admission.leave(request_id, now=now)
        self.look()

    def look(self):
        granted, budgets = self.admission.take()
        self.granted |= granted
        self.budgets |= budgets
        self.admission.check_integrity()

    def holds(self, tenant="a"):
        return self.admission.reserved_by(tenant)


@pytest.fixture
def door():
    return Door(leased(terms(queue=QueueLimits(requests=0))))


def test_a_tenant_that_the_lease_does_not_name_is_not_admitted(door):
    with pytest.raises(UnavailableError):
        door.enter(tenant="b")


def test_admission_reserves_and_leaving_gives_back_once(door):
    assert door.enter(budget_tokens=100).kv.budget_tokens == 100
    assert door.holds() == 10 + 100 + BUFFER
    door.leave("r")
    assert not door.admission.leave("r", now=2.0)
    assert door.holds() == 0


def test_an_unnamed_budget_is_shrunk_and_a_named_one_is_not(door):
    door.enter("big", budget_tokens=200)  # 226 of 400
    door.enter("mid", budget_tokens=50)  # 76: 98 are left
    with pytest.raises(BudgetExhaustedError):
        door.enter("named", budget_tokens=100)
    grant = door.enter("unnamed")
    assert (grant.kv.budget_tokens, grant.wished_tokens) == (98 - 10 - BUFFER, 100)
    assert door.budgets == {}  # nobody was squeezed for it


def test_a_prompt_that_running_requests_share_is_charged_once():
    door = Door(leased(terms(slots=600)))
    ids = tuple(range(5 * BLOCK_TOKENS + 3))
    door.enter("1", ids=ids, budget_tokens=50)
    assert door.holds() == 5 * BLOCK_TOKENS + 3 + 50 + BUFFER
    assert door.enter("2", ids=(*ids, 7, 8), budget_tokens=50).slots == 5 + 50 + BUFFER
    door.leave("1")
    assert door.holds() == 5 * BLOCK_TOKENS + 5 + 50 + BUFFER  # the second holds the prefix now
    door.enter("3", ids=(99, *ids), budget_tokens=50)
    assert door.holds() == 2 * (5 * BLOCK_TOKENS + 50 + BUFFER) + 5 + 4
    door.enter("4", ids=ids, budget_tokens=50, prompt_mode="evictable")  # its own copy competes for its budget
    assert door.holds() == 2 * (5 * BLOCK_TOKENS + 50 + BUFFER) + 5 + 4 + len(ids) + 50 + BUFFER
    for name in "1234":  # of the others, the prompt stays
        door.admission.prompt_gone(name, now=3.0)
    assert door.holds() == 2 * (5 * BLOCK_TOKENS + 50 + BUFFER) + 5 + 4 + 50 + BUFFER


def test_a_pinned_prompt_shorter_than_a_block_stays_reserved_after_rounds(door):
    door.enter("1", ids=(1, 2, 3), budget_tokens=50)
    door.admission.prompt_gone("1", now=2.0)
    assert door.holds() == 3 + 50 + BUFFER


def test_running_requests_of_the_tenant_are_squeezed_before_anyone_waits(door):
    for name in ("1", "2", "3"):
        door.enter(name)  # 126 each, 22 are left: the smallest request needs 58
    grant = door.enter("4")
    assert grant.kv.budget_tokens == 32
    assert door.budgets == dict.fromkeys("123", 88)  # three times 12 are freed, 36 lacked
    assert door.holds() == 400


def test_who_borrows_waits_until_the_engine_has_freed_what_was_squeezed():
    door = Door(leased(terms(slots=1000, guaranteed=0, limit=1000), pool=400))
    for name in ("1", "2", "3"):
        door.enter(name)
        door.admission.progress(name, 20, now=2.0)  # 20 tokens/s: twenty steps take a second
    assert door.enter("4", now=2.0) is None
    assert door.budgets == dict.fromkeys("123", 88)
    for now, is_in in ((2.9, False), (3.0, True)):
        door.admission.tick(now=now)
        door.look()
        assert ("4" in door.granted) is is_in
    assert (door.granted["4"].kv.budget_tokens, door.granted["4"].queued_s) == (32, 1.0)
    assert door.budgets == dict.fromkeys("123", 88)  # squeezed once


def test_a_named_budget_is_not_squeezed_for_a_request_of_the_same_tenant(door):
    for name in ("1", "2", "3"):
        door.enter(name, budget_tokens=100)
    with pytest.raises(BudgetExhaustedError):
        door.enter("4")
    assert door.budgets == {}


def test_squeezed_budgets_grow_back_after_a_quiet_time(door):
    for name in ("1", "2", "3", "4"):
        door.enter(name)
    door.budgets.clear()
    door.leave("4", now=1.5)
    door.leave("3", now=1.5)
    assert door.budgets == {}
    door.admission.tick(now=1.0 + GROW_AFTER_S)
    door.look()
    assert door.budgets == dict.fromkeys("12", 100)
    (use,) = door.admission.use(now=3.0)
    assert use.squeezed_slots == 0


def test_a_tenant_below_its_guarantee_calls_loans_back():
    tenants = terms("a", slots=1000, guaranteed=0, limit=1000), terms("b", slots=0, guaranteed=500, limit=500)
    door = Door(leased(*tenants, num_replicas=1))
    for name in range(20):
        try:
            door.enter(f"a{name}", budget_tokens=100)  # named: yields to a guarantee all the same
        except BudgetExhaustedError:
            break
    kept_free = 100 + 2 * BUFFER  # one typical request of b
    assert POOL - kept_free - 126 < door.holds("a") <= POOL - kept_free
    for name in range(3):
        assert door.enter(f"b{name}", "b", budget_tokens=100, now=2.0).queued_s == 0.0
    assert door.holds("b") == 3 * 126
    assert door.holds("a") <= POOL - 3 * 126
    assert min(door.budgets.values()) >= 32


def test_a_request_larger_than_usual_calls_loans_back_at_once():
    tenants = terms("a", slots=1000, guaranteed=0, limit=1000), terms("b", slots=0, guaranteed=500, limit=500)
    door = Door(leased(*tenants, num_replicas=1))
    for name in range(6):
        assert door.enter(f"a{name}", budget_tokens=100)  # 756 of 1000
    assert door.enter("b", "b", prompt=100, max_new=300, method="full", now=2.0).queued_s == 0.0
    assert door.holds("b") == 400


def test_only_what_can_be_called_back_is_lent():
    tenants = terms("a", slots=1000, guaranteed=0, limit=1000), terms("b", slots=0, guaranteed=500, limit=500)
    door = Door(leased(*tenants, num_replicas=1))
    assert door.enter("1", prompt=90, max_new=400, method="full")
    assert door.enter("2", prompt=90, max_new=400, method="full") is None  # could not be squeezed for b
    assert door.enter("3", "b", prompt=90, max_new=400, method="full").queued_s == 0.0


def test_a_smaller_lease_squeezes_and_what_is_guaranteed_waits_for_the_controller(door):
    door.enter("1", budget_tokens=100)
    door.admission.apply_lease(lease(terms(slots=80, queue=QueueLimits(requests=0))), granted_at=1.0, now=1.0)
    door.look()
    assert door.budgets == {"1": 80 - 10 - BUFFER}
    assert not door.admission.is_urgent
    assert door.enter("2", prompt=1, max_new=1) is None
    assert door.admission.is_urgent


@pytest.mark.parametrize(("limit", "prompt"), [(600, 700), (2000, 1001)])
def test_what_can_never_fit_is_invalid_not_exhausted(limit, prompt):
    door = Door(leased(terms(slots=limit, limit=limit)))
    with pytest.raises(InvalidRequestError, match=rf"limit is {limit}.*has 1000"):
        door.enter(prompt=prompt)
    assert door.admission.use(now=1.0) == ()


def test_the_pool_bounds_all_tenants_together():
    door = Door(leased(terms("a"), terms("b", queue=QueueLimits(requests=0)), pool=500))
    door.enter("1", prompt=390, max_new=10, method="full")
    with pytest.raises(BudgetExhaustedError):
        door.enter("2", tenant="b", prompt=390, max_new=10, method="full")


def test_refusal_is_reported_as_demand_until_the_client_is_due(door):
    door.enter("1", prompt=350, max_new=10, method="full")
    with pytest.raises(BudgetExhaustedError) as caught:
        door.enter("2", budget_tokens=100)
    assert caught.value.retry_after_s == TTL  # nothing is known of the one that runs
    (use,) = door.admission.use(now=2.0)
    assert (use.reserved_slots, use.wanted_slots, use.active_requests, use.refused_requests) == (360, 126, 1, 1)
    (use,) = door.admission.use(now=1.0 + TTL + TTL / 3)
    assert (use.wanted_slots, use.refused_requests) == (0, 1)


def test_the_wait_follows_the_observed_rate(door):
    door.enter("1", prompt=100, max_new=290, method="full", now=1.0)
    door.admission.progress("1", 90, now=4.0)  # 30 tokens/s, 200 to go
    with pytest.raises(BudgetExhaustedError) as caught:
        door.enter("2", budget_tokens=100, now=4.0)
    assert caught.value.retry_after_s == pytest.approx(200 / 30)


def test_who_may_wait_does_and_is_next():
    door = Door(leased(terms(limit=1000, queue=QueueLimits(requests=2, wait_s=60.0))))
    door.enter("1", prompt=350, max_new=10, method="full")
    assert door.enter("2", budget_tokens=100, now=1.0) is None
    assert door.enter("3", budget_tokens=100, now=1.0) is None
    with pytest.raises(BudgetExhaustedError):  # the queue is full
        door.enter("4", budget_tokens=100, now=1.0)
    (use,) = door.admission.use(now=1.0)
    assert (use.queued_requests, use.wanted_slots) == (2, 3 * 126)
    door.leave("1", now=3.0)
    assert [door.granted[name].queued_s for name in "23"] == [2.0, 2.0]


def test_who_would_wait_longer_than_the_client_is_refused_at_once():
    door = Door(leased(terms(limit=400)))
    door.enter("1", prompt=100, max_new=290, method="full", now=1.0)
    door.admission.progress("1", 90, now=4.0)
    with pytest.raises(BudgetExhaustedError):  # 6.7 s are expected
        door.enter("2", budget_tokens=100, patience_s=5.0, now=4.0)
    assert door.enter("3", budget_tokens=100, patience_s=8.0, now=4.0) is None
    error = door.admission.give_up("3", now=5.0)
    assert error.retry_after_s > 0
    door.look()


def test_waiting_tenants_are_served_by_weight():
    tenants = [
        terms(t, slots=300, guaranteed=0, weight=w, queue=QueueLimits(wait_s=60.0)) for t, w in (("a", 1), ("b", 3))
    ]
    door = Door(leased(*tenants, pool=126))
    door.enter("first", "a", budget_tokens=100)
    for n in range(12):
        assert door.enter(f"a{n}", "a", budget_tokens=100) is None
        assert door.enter(f"b{n}", "b", budget_tokens=100) is None
    served = ["first"]
    for _ in range(8):
        door.leave(served[-1])
        (new,) = set(door.granted) - set(served)
        served.append(new)
    assert sum(name.startswith("b") for name in served[1:]) == 6


def test_a_tenant_is_not_held_up_by_another_that_waits_for_its_own_lease():
    door = Door(leased(terms("a", slots=130), terms("b")))
    door.enter("1", "a", budget_tokens=100)
    assert door.enter("2", "a", budget_tokens=100) is None
    assert door.enter("3", "b", budget_tokens=100)


def test_a_lapsed_lease_leaves_the_guaranteed_share(door):
    with pytest.raises(BudgetExhaustedError):
        door.enter(budget_tokens=200, now=TTL)
    door.admission.apply_lease(lease(terms()), granted_at=TTL, now=TTL)
    assert door.enter(budget_tokens=200, now=TTL)
