"""The ledger under any sequence of transitions: invariants hold, illegal ones change nothing, a restart too."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reasonserve import errors
from reasonserve.controller.ledger import Ledger
from reasonserve.controller.records import Key, Profile, QueueLimits, Report, RequestBudget, Snapshot, Tenant
from reasonserve.controller.state import State

TTL_S = 10.0
TENANT_IDS = st.sampled_from(["a", "b", "c"])
REPLICA_IDS = st.sampled_from(["r0", "r1", "r2"])
MODELS = st.sampled_from(["m0", "m1"])
SLOTS = st.integers(0, 200)
NO_LIMITS = QueueLimits()
REQUESTS = st.sampled_from([-1, 0, 1, 1024, 1025])
WAITS = st.sampled_from([-1, 0, 10**6 - 1, 10**6, 3600 * 10**9, 3600 * 10**9 + 1])
QUEUES = st.builds(QueueLimits, max_requests=REQUESTS, max_wait_ns=WAITS)


def _tenant(tenant_id, guaranteed=0, limit=100, weight=1, queue=NO_LIMITS):
    return Tenant(
        tenant_id=tenant_id,
        display_name="",
        weight=weight,
        guaranteed_slots=guaranteed,
        limit_slots=limit,
        request_budget=RequestBudget(min_tokens=32, default_tokens=64, max_tokens=64),
        queue=queue,
    )


def _profile(name, model):
    return Profile(
        profile_id=name, sha256=name * 4, model_fingerprint=model, model_name=model, num_layers=2, created_ns=1
    )


class LedgerMachine(RuleBasedStateMachine):
    """What is durable: every rule is a request that may be illegal."""

    steps = 0

    @initialize(budgets=st.lists(st.tuples(SLOTS, SLOTS), max_size=3), capacity=st.integers(1, 300))
    def start(self, budgets, capacity):
        """Begins with some tenants and a replica, so that overcommit needs no luck."""
        self.now = 0.0
        self.ledger = Ledger(lease_ttl_s=TTL_S, now=self.now)
        self.journal = []
        for tenant_id, (guaranteed, more) in zip("abc", budgets, strict=False):
            made = _tenant(tenant_id, guaranteed, guaranteed + more)
            self.do(lambda made=made: self.ledger.create_tenant(made, allow_overcommit=True))
        self.open_lease("r0", capacity)

    @rule(replica_id=REPLICA_IDS, capacity=st.integers(1, 300))
    def open_lease(self, replica_id, capacity):
        change = self.do(lambda: self.ledger.join_replicas(replica_id))
        report = Report(replica_id=replica_id, capacity_slots=capacity)
        self.ledger.open_lease(report, epoch=change.revision, now=self.now)

    def do(self, plan):
        """Plans and applies; an illegal plan must leave no trace."""
        before, leases = self.ledger.state.snapshot(), dict(self.ledger.leases.replicas)
        try:
            change = plan()
        except errors.ReasonServeError:
            assert self.ledger.state.snapshot() == before
            assert dict(self.ledger.leases.replicas) == leases
            return None
        self.ledger.apply(change)
        self.journal.append(change)
        assert self.ledger.state.revision == before.revision + bool(change.events)
        return change

    @rule(tenant_id=TENANT_IDS, low=SLOTS, high=SLOTS, weight=st.integers(0, 4), allow=st.booleans())
    def create_tenant(self, tenant_id, low, high, weight, allow):
        made = _tenant(tenant_id, low, high, weight)
        if self.do(lambda: self.ledger.create_tenant(made, allow_overcommit=allow)):
            assert allow or not self.ledger.warning

    @rule(
        tenant_id=TENANT_IDS,
        low=SLOTS,
        high=SLOTS,
        etag=st.sampled_from(["", "stored", "r0"]),
        allow=st.booleans(),
    )
    def update_tenant(self, tenant_id, low, high, etag, allow):
        stored = self.ledger.state.tenants.get(tenant_id)
        etag = stored.etag if stored and etag == "stored" else etag
        mask = ["guaranteed_slots", "limit_slots"]
        given = _tenant(tenant_id, low, high)
        self.do(lambda: self.ledger.update_tenant(given, mask=mask, etag=etag, allow_overcommit=allow))

    @rule(tenant_id=TENANT_IDS, queue=QUEUES)
    def change_queue(self, tenant_id, queue):
        """Limits out of range are refused; others are there afterwards, and nothing else is changed."""
        stored = self.ledger.state.tenants.get(tenant_id)
        given = _tenant(tenant_id, -1, -1, -1, queue)
        change = self.do(lambda: self.ledger.update_tenant(given, mask=["queue"], etag=""))
        is_legal = queue.max_requests in (0, 1, 1024) and queue.max_wait_ns in (0, 10**6, 3600 * 10**9)
        assert bool(change) is (stored is not None and is_legal)
        if change:
            assert self.ledger.state.tenant(tenant_id) == replace(stored, queue=queue, revision=change.revision)

    @rule(tenant_id=TENANT_IDS)
    def delete_tenant(self, tenant_id):
        if self.do(lambda: self.ledger.delete_tenant(tenant_id)):
            assert not self.ledger.state.keys_of(tenant_id)

    @rule(tenant_id=TENANT_IDS, number=st.integers(0, 4))
    def add_key(self, tenant_id, number):
        self.do(lambda: self.ledger.add_key(Key(key_id=f"k{number}", tenant_id=tenant_id, secret_hash="h"), now_ns=0))

    @rule(tenant_id=TENANT_IDS, number=st.integers(0, 4))
    def revoke_key(self, tenant_id, number):
        if self.do(lambda: self.ledger.revoke_key(tenant_id, f"k{number}")):
            assert self.ledger.state.key(f"k{number}") is None

    @rule(name=st.sampled_from(["p0", "p1", "p2"]), model=MODELS)
    def put_profile(self, name, model):
        self.do(lambda: self.ledger.put_profile(_profile(name, model), b""))

    @rule(name=st.sampled_from(["p0", "p1", "p2"]))
    def activate_profile(self, name):
        if self.do(lambda: self.ledger.activate_profile(name)):
            profile = self.ledger.state.profile(name)
            assert self.ledger.state.active_profile(profile.model_fingerprint) == profile

    @rule(name=st.sampled_from(["p0", "p1", "p2"]))
    def delete_profile(self, name):
        known = self.ledger.state.profiles.get(name)
        deletable = known is not None and not self.ledger.state.is_active(known)
        assert bool(self.do(lambda: self.ledger.delete_profile(name))) is deletable

    @rule(seconds=st.integers(0, 12))
    def pass_time(self, seconds):
        self.now += seconds
        self.do(lambda: self.ledger.expire(self.now))
        assert not self.ledger.leases.lapsed(self.now)

    @rule()
    def restart(self):
        """Whatever the ledger kept durable is there again; its leases are not."""
        before = self.ledger.state.snapshot()
        self.ledger = Ledger(before, lease_ttl_s=TTL_S, now=self.now)
        assert self.ledger.state.snapshot() == before
        assert not self.ledger.leases.replicas
        assert self.ledger.leases.num_replicas == len(before.epochs)

    @invariant()
    def nothing_is_overcommitted(self):
        type(self).steps += 1
        self.ledger.check_integrity()
        assert {*self.ledger.leases.replicas} <= {*self.ledger.state.epochs}

    @precondition(lambda self: self.journal)
    @invariant()
    def the_journal_replays(self):
        """From the beginning, and from any snapshot on the way."""
        state = State(Snapshot())
        for i, change in enumerate(self.journal):
            state.apply(change)
            if i == len(self.journal) // 2:
                state = State(state.snapshot())
        assert state.snapshot() == self.ledger.state.snapshot()


def test_the_ledger_keeps_its_promises_over_ten_thousand_steps():
    LedgerMachine.steps = 0
    run_state_machine_as_test(LedgerMachine, settings=settings(max_examples=400, stateful_step_count=50, deadline=None))
    assert LedgerMachine.steps > 10_000
