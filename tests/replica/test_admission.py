"""The ledger: examples of each rule, then any order of events at all."""

import pickle

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from reasonserve.errors import BudgetExhaustedError, InvalidRequestError, ReasonServeError, UnavailableError
from reasonserve.replica.admission import Admission, Lease
from reasonserve.replica.sizing import KvAsk, TenantTerms

POOL, BUFFER, TTL = 1000, 16, 10.0


def terms(tenant_id="a", slots=400, guaranteed=300, limit=600):
    return TenantTerms(
        tenant_id=tenant_id,
        slots=slots,
        guaranteed_slots=guaranteed,
        limit_slots=limit,
        min_tokens=32,
        default_tokens=100,
        max_tokens=200,
    )


def lease(*tenants, num_replicas=2):
    return Lease(epoch=1, ttl_s=TTL, tenants={t.tenant_id: t for t in tenants}, num_replicas=num_replicas)


@pytest.fixture
def admission():
    made = Admission(pool_slots=POOL, buffer_tokens=BUFFER)
    made.apply_lease(lease(terms()), granted_at=0.0)
    return made


def admit(admission, request_id="r", *, tenant="a", prompt=10, max_new=10_000, now=1.0, **ask):
    return admission.admit(request_id, tenant, KvAsk(**ask), prompt_tokens=prompt, max_new_tokens=max_new, now=now)


def test_without_a_lease_nothing_is_admitted():
    with pytest.raises(UnavailableError, match="no lease"):
        admit(Admission(pool_slots=POOL, buffer_tokens=BUFFER))


def test_a_tenant_that_the_lease_does_not_name_is_not_admitted(admission):
    with pytest.raises(UnavailableError):
        admit(admission, tenant="b")


def test_admission_reserves_and_release_gives_back_once(admission):
    assert admit(admission, budget_tokens=100).budget_tokens == 100
    assert admission.reserved_by("a") == 10 + 100 + BUFFER
    assert admission.release("r")
    assert not admission.release("r")
    assert admission.reserved_by("a") == 0


def test_an_unnamed_budget_is_shrunk_and_a_named_one_is_not(admission):
    admit(admission, "big", budget_tokens=200)  # 226 of 400
    admit(admission, "mid", budget_tokens=50)  # 76: 98 are left
    with pytest.raises(BudgetExhaustedError):
        admit(admission, "named", budget_tokens=100)
    assert admit(admission, "unnamed").budget_tokens == 98 - 10 - BUFFER
    with pytest.raises(BudgetExhaustedError):  # not even the smallest fits now
        admit(admission, "late")
    admission.check_integrity()


@pytest.mark.parametrize(("limit", "prompt"), [(600, 700), (2000, 1001)])
def test_what_can_never_fit_is_invalid_not_exhausted(limit, prompt):
    admission = Admission(pool_slots=POOL, buffer_tokens=BUFFER)
    admission.apply_lease(lease(terms(slots=limit, limit=limit)), granted_at=0.0)
    with pytest.raises(InvalidRequestError, match=rf"limit is {limit}.*has 1000"):
        admit(admission, prompt=prompt)
    assert admission.use(now=1.0) == ()


def test_the_pool_bounds_all_tenants_together():
    admission = Admission(pool_slots=500, buffer_tokens=BUFFER)
    admission.apply_lease(lease(terms("a"), terms("b")), granted_at=0.0)
    admit(admission, "1", prompt=390, max_new=10, method="full")
    with pytest.raises(BudgetExhaustedError):
        admit(admission, "2", tenant="b", prompt=390, max_new=10, method="full")


def test_refusal_is_reported_as_demand_until_the_client_is_due(admission):
    admit(admission, "1", prompt=350, max_new=10, method="full")
    with pytest.raises(BudgetExhaustedError) as caught:
        admit(admission, "2", budget_tokens=100)
    assert caught.value.retry_after_s == TTL  # nothing is known of the one that runs
    (use,) = admission.use(now=2.0)
    assert (use.reserved_slots, use.wanted_slots, use.active_requests, use.refused_requests) == (360, 126, 1, 1)
    (use,) = admission.use(now=1.0 + TTL + TTL / 3)
    assert (use.wanted_slots, use.refused_requests) == (0, 1)


def test_the_wait_follows_the_observed_rate(admission):
    admit(admission, "1", prompt=100, max_new=290, method="full", now=1.0)
    admission.progress("1", 90, now=4.0)  # 30 tokens/s, 200 to go
    with pytest.raises(BudgetExhaustedError) as caught:
        admit(admission, "2", budget_tokens=100, now=4.0)
    assert caught.value.retry_after_s == pytest.approx(200 / 30)
    assert pickle.loads(pickle.dumps(caught.value)).retry_after_s == caught.value.retry_after_s


def test_a_lapsed_lease_leaves_the_guaranteed_share(admission):
    assert admission.allowed_slots("a", now=TTL - 0.1) == 400
    assert admission.allowed_slots("a", now=TTL) == 300 // 2
    with pytest.raises(BudgetExhaustedError):
        admit(admission, budget_tokens=200, now=TTL)
    admission.apply_lease(lease(terms()), granted_at=TTL)
    admit(admission, budget_tokens=200, now=TTL)


def test_a_lease_above_the_limit_is_cut(admission):
    admission.apply_lease(lease(terms(slots=900, limit=600)), granted_at=0.0)
    assert admission.allowed_slots("a", now=1.0) == 600


def test_a_lease_that_shrinks_leaves_running_requests_alone(admission):
    admit(admission, budget_tokens=200)
    admission.apply_lease(lease(terms(slots=50)), granted_at=1.0)
    assert admission.reserved_by("a") == 226
    with pytest.raises(BudgetExhaustedError):
        admit(admission, "2", prompt=1, max_new=1)


class LedgerMachine(RuleBasedStateMachine):
    """Holds the ledger against a plain dictionary, under any order of leases, requests and releases."""

    running = Bundle("running")
    tenants = st.sampled_from(["a", "b"])

    def __init__(self):
        super().__init__()
        self.admission = Admission(pool_slots=POOL, buffer_tokens=BUFFER)
        self.held = {}
        self.now = 0.0
        self.next_id = 0
        self.waits = []

    @rule(slots=st.tuples(*[st.integers(0, 700)] * 2), limit=st.integers(1, 700), replicas=st.integers(0, 3))
    def lease(self, slots, limit, replicas):
        granted = [terms(name, s, min(s, limit), limit) for name, s in zip("ab", slots, strict=True)]
        self.admission.apply_lease(lease(*granted, num_replicas=replicas), granted_at=self.now)

    @rule(seconds=st.floats(0, 15))
    def wait(self, seconds):
        self.now += seconds

    @rule(
        target=running,
        tenant=tenants,
        prompt=st.integers(1, 300),
        max_new=st.integers(1, 400),
        method=st.sampled_from(["full", "r-kv", "reasonalloc"]),
        budget=st.none() | st.integers(32, 200),
    )
    def admit(self, tenant, prompt, max_new, method, budget):
        self.next_id += 1
        request_id, before = f"r{self.next_id}", self.admission.reserved_by(tenant)
        ask = KvAsk(method=method, budget_tokens=None if method == "full" else budget)
        try:
            kv = self.admission.admit(
                request_id, tenant, ask, prompt_tokens=prompt, max_new_tokens=max_new, now=self.now
            )
        except ReasonServeError as error:
            assert self.admission.reserved_by(tenant) == before
            self.waits += [error.retry_after_s] if isinstance(error, BudgetExhaustedError) else []
            return request_id
        after = self.admission.reserved_by(tenant)
        assert before < after <= self.admission.allowed_slots(tenant, now=self.now)
        if ask.budget_tokens is not None:
            assert kv.budget_tokens == budget
        elif method != "full":
            assert 32 <= kv.budget_tokens <= 100
        self.held[request_id] = (tenant, after - before)
        return request_id

    @rule(request_id=running, output=st.integers(0, 400))
    def progress(self, request_id, output):
        self.admission.progress(request_id, output, now=self.now)

    @rule(request_id=consumes(running))
    def release(self, request_id):
        assert self.admission.release(request_id) == (request_id in self.held)
        self.held.pop(request_id, None)
        assert not self.admission.release(request_id)

    @invariant()
    def sums_agree(self):
        self.admission.check_integrity()
        assert all(0.1 <= wait <= 60 for wait in self.waits)
        for name in "ab":
            assert self.admission.reserved_by(name) == sum(s for t, s in self.held.values() if t == name)
        use = {u.tenant_id: u for u in self.admission.use(now=self.now)}
        assert sum(u.active_requests for u in use.values()) == len(self.held)


TestLedgerMachine = LedgerMachine.TestCase
