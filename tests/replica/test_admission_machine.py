"""Admission under any order of events: leases, requests, progress, ends, cancels, refusals, time."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from reasonserve.errors import BudgetExhaustedError, ReasonServeError
from reasonserve.replica.admission import Admission, Entry, Lease
from reasonserve.replica.sizing import KvAsk, QueueLimits, TenantTerms

POOL, BUFFER, TTL = 1000, 16, 10.0
TENANTS = "abc"


class AdmissionMachine(RuleBasedStateMachine):
    """Keeps its own list of who was granted what, and holds the sums against it."""

    here = Bundle("here")

    def __init__(self):
        super().__init__()
        self.admission = Admission(pool_slots=POOL, buffer_tokens=BUFFER)
        self.inside = {}  # request id -> (tenant, smallest budget, admitted budget)
        self.waiting = set()
        self.budgets = {}
        self.waits = []
        self.now = 0.0
        self.next_id = 0
        self.epoch = 0

    @rule(
        slots=st.tuples(*[st.integers(0, 700)] * 3),
        guaranteed=st.tuples(*[st.integers(0, 500)] * 3),
        limit=st.integers(500, 900),
        replicas=st.integers(1, 3),
    )
    def lease(self, slots, guaranteed, limit, replicas):
        self.epoch += 1
        granted = {
            name: TenantTerms(
                tenant_id=name,
                slots=s,
                guaranteed_slots=g,
                limit_slots=limit,
                min_tokens=32,
                default_tokens=100,
                max_tokens=200,
                weight=1 + ord(name) % 3,
                queue=QueueLimits(requests=3),
            )
            for name, s, g in zip(TENANTS, slots, guaranteed, strict=True)
        }
        made = Lease(epoch=self.epoch, ttl_s=TTL, tenants=granted, num_replicas=replicas)
        self.admission.apply_lease(made, granted_at=self.now, now=self.now)
        self.look()

    @rule(seconds=st.floats(0, 15))
    def wait(self, seconds):
        self.now += seconds
        self.admission.tick(now=self.now)
        self.look()

    @rule(
        target=here,
        tenant=st.sampled_from(TENANTS),
        shared=st.integers(0, 6),
        own=st.integers(1, 100),
        max_new=st.integers(1, 400),
        outputs=st.integers(1, 2),
        method=st.sampled_from(["full", "r-kv", "reasonalloc"]),
        mode=st.sampled_from(["pinned", "evictable"]),
        budget=st.none() | st.integers(32, 200),
        patience=st.none() | st.floats(0.1, 30),
    )
    def enter(self, tenant, shared, own, max_new, outputs, method, mode, budget, patience):
        self.next_id += 1
        request_id = f"r{self.next_id}"
        entry = Entry(
            request_id=request_id,
            tenant_id=tenant,
            ask=KvAsk(method=method, budget_tokens=None if method == "full" else budget, prompt_mode=mode),
            prompt_ids=(*range(16 * shared), *[1000 + self.next_id] * own),
            max_new_tokens=max_new,
            outputs=outputs,
            patience_s=patience,
        )
        self.waiting.add(request_id)
        try:
            self.admission.enter(entry, now=self.now)
        except ReasonServeError as error:
            self.waiting.discard(request_id)
            self.waits += [error.retry_after_s] if isinstance(error, BudgetExhaustedError) else []
        self.look()
        if request_id in self.inside and budget is not None and method != "full":
            assert self.inside[request_id][2] == budget
        return request_id

    @rule(request_id=here, output=st.integers(0, 400), rounds=st.booleans())
    def progress(self, request_id, output, rounds):
        self.admission.progress(request_id, output, now=self.now)
        if rounds:
            self.admission.prompt_gone(request_id, now=self.now)
        self.look()

    @rule(request_id=here)
    def lose_patience(self, request_id):
        if request_id in self.waiting:
            self.waits.append(self.admission.give_up(request_id, now=self.now).retry_after_s)
            self.waiting.discard(request_id)
            self.look()

    @rule(request_id=consumes(here))
    def leave(self, request_id):
        known = request_id in self.inside or request_id in self.waiting
        self.inside.pop(request_id, None)
        self.waiting.discard(request_id)
        assert self.admission.leave(request_id, now=self.now) == known
        assert not self.admission.leave(request_id, now=self.now)
        self.look()

    def look(self):
        granted, budgets = self.admission.take()
        for request_id, grant in granted.items():
            self.waiting.remove(request_id)
            bounded = grant.kv.method != "full"
            assert not bounded or 32 <= grant.kv.budget_tokens <= grant.wished_tokens
            self.inside[request_id] = (request_id, 32 if bounded else 0, grant.kv.budget_tokens)
            self.budgets[request_id] = grant.kv.budget_tokens
        for request_id, budget in budgets.items():
            _, least, most = self.inside[request_id]
            assert least <= budget <= most
            self.budgets[request_id] = budget

    @invariant()
    def nothing_leaks(self):
        self.admission.check_integrity()
        assert all(0.1 <= wait <= 60 for wait in self.waits)
        use = self.admission.use(now=self.now)
        assert sum(u.active_requests for u in use) == len(self.inside)
        assert sum(u.queued_requests for u in use) == len(self.waiting)
        for request_id in self.inside:
            assert self.admission.budget_of(request_id) == self.budgets[request_id]

    def teardown(self):
        for request_id in [*self.inside, *self.waiting]:
            self.admission.leave(request_id, now=self.now)
        assert all(u.reserved_slots == u.squeezed_slots == 0 for u in self.admission.use(now=self.now))
        assert self.admission.queued_requests == 0
        self.admission.check_integrity()


AdmissionMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAdmissionMachine = AdmissionMachine.TestCase


class LoanMachine(RuleBasedStateMachine):
    """One replica, fixed guarantees, a tenant without one that takes whatever it gets: guarantees stay in reach."""

    running = Bundle("running")

    def __init__(self):
        super().__init__()
        guarantees = {"noise": 0, "a": 300, "b": 400}
        granted = {
            name: TenantTerms(
                tenant_id=name,
                slots=POOL if name == "noise" else 0,
                guaranteed_slots=guaranteed,
                limit_slots=POOL,
                min_tokens=32,
                default_tokens=100,
                max_tokens=200,
            )
            for name, guaranteed in guarantees.items()
        }
        self.admission = Admission(pool_slots=POOL, buffer_tokens=BUFFER)
        made = Lease(epoch=1, ttl_s=1e9, tenants=granted, num_replicas=1)
        self.admission.apply_lease(made, granted_at=0.0, now=0.0)
        self.guarantees = guarantees
        self.next_id = 0

    @rule(
        target=running,
        tenant=st.sampled_from(["noise", "noise", "a", "b"]),
        prompt=st.integers(1, 60),
        method=st.sampled_from(["full", "r-kv"]),
        max_new=st.integers(1, 300),
        budget=st.none() | st.integers(32, 200),
    )
    def enter(self, tenant, prompt, method, max_new, budget):
        self.next_id += 1
        request_id, before = f"r{self.next_id}", self.admission.reserved_by(tenant)
        named = None if method == "full" else budget
        least = prompt + (max_new if method == "full" else min(max_new, (named or 32) + BUFFER))
        ask = KvAsk(method=method, budget_tokens=named)
        try:
            self.admission.enter(
                Entry(
                    request_id=request_id,
                    tenant_id=tenant,
                    ask=ask,
                    prompt_ids=(self.next_id,) * prompt,
                    max_new_tokens=max_new,
                ),
                now=1.0,
            )
        except BudgetExhaustedError:
            assert before + least > self.guarantees[tenant], "a request inside its tenant's guarantee was refused"
        granted, _ = self.admission.take()
        if before + least <= self.guarantees[tenant]:
            assert request_id in granted, "a request inside its tenant's guarantee waited"
        if request_id in granted:
            within = self.admission.reserved_by(tenant) <= self.guarantees[tenant]
            assert granted[request_id].is_guaranteed == within
        if self.guarantees[tenant] and request_id not in granted:
            self.admission.leave(request_id, now=1.0)  # what follows of this tenant must not wait behind it
        self.admission.check_integrity()
        return request_id

    @rule(request_id=consumes(running))
    def leave(self, request_id):
        self.admission.leave(request_id, now=1.0)
        self.admission.take()


LoanMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLoanMachine = LoanMachine.TestCase
