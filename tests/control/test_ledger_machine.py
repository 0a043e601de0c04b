"""The ledger under any sequence of transitions: invariants hold, illegal ones change nothing, a restart too."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reasonserve import errors
from reasonserve.controller.ledger import Ledger
from reasonserve.controller.records import Key, Profile, Report, RequestBudget, Snapshot, Tenant, TenantUse
from reasonserve.controller.state import State

TTL_S = 10.0
TENANT_IDS = st.sampled_from(["a", "b", "c"])
REPLICA_IDS = st.sampled_from(["r0", "r1", "r2"])
MODELS = st.sampled_from(["m0", "m1"])
SLOTS = st.integers(0, 200)


def _tenant(tenant_id, guaranteed=0, limit=100, weight=1):
    return Tenant(
        tenant_id=tenant_id,
        display_name="",
        weight=weight,
        guaranteed_slots=guaranteed,
        limit_slots=limit,
        request_budget=RequestBudget(min_tokens=32, default_tokens=64, max_tokens=64),
    )


def _profile(name, model):
    return Profile(
        profile_id=name, sha256=name * 4, model_fingerprint=model, model_name=model, num_layers=2, created_ns=1
    )


class LedgerMachine(RuleBasedStateMachine):
    """Streams are (replica id, epoch) pairs, as a servicer would hold them."""

    streams = Bundle("streams")
    steps = 0

    @initialize(
        target=streams,
        budgets=st.lists(st.tuples(SLOTS, SLOTS), min_size=3, max_size=3),
        count=st.integers(0, 3),
        capacity=st.integers(1, 300),
    )
    def start(self, budgets, count, capacity):
        """Begins with some tenants and a replica, so that contention needs no luck."""
        self.now = 0.0
        self.ledger = Ledger(lease_ttl_s=TTL_S, now=self.now)
        self.journal = []
        self.highest = dict.fromkeys("abc", 0)
        self.told = {}
        for tenant_id, (guaranteed, more) in zip("abc"[:count], budgets, strict=False):
            made = _tenant(tenant_id, guaranteed, guaranteed + more)
            self.do(lambda made=made: self.ledger.create_tenant(made, allow_overcommit=True))
        return self.open_lease("r0", capacity)

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

    @rule(tenant_id=TENANT_IDS)
    def delete_tenant(self, tenant_id):
        if self.do(lambda: self.ledger.delete_tenant(tenant_id)):
            assert not self.ledger.state.keys_of(tenant_id)

    @rule(tenant_id=TENANT_IDS, number=st.integers(0, 4))
    def add_key(self, tenant_id, number):
        self.do(lambda: self.ledger.add_key(Key(key_id=f"k{number}", tenant_id=tenant_id, secret_hash="h")))

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

    @rule(target=streams, replica_id=REPLICA_IDS, capacity=st.integers(1, 300))
    def open_another(self, replica_id, capacity):
        return self.open_lease(replica_id, capacity)

    def open_lease(self, replica_id, capacity):
        epochs = [replica.epoch for replica in self.ledger.leases.replicas.values()]
        change = self.do(lambda: self.ledger.join_replica(replica_id))
        report = Report(replica_id=replica_id, capacity_slots=capacity)
        self.ledger.open_lease(report, epoch=change.revision, now=self.now)
        assert all(change.revision > epoch for epoch in epochs)
        return replica_id, change.revision

    @rule(
        stream=streams,
        shares=st.lists(st.integers(0, 100), min_size=3, max_size=3),
        wants=st.lists(SLOTS, min_size=3, max_size=3),
    )
    def renew_lease(self, stream, shares, wants):
        """Reports reservations that the lease allowed, as an honest replica does."""
        replica_id, epoch = stream
        held = self.ledger.leases.holds(replica_id, epoch)
        known = self.ledger.leases.replicas.get(replica_id)
        uses = {
            t: TenantUse(reserved_slots=known.leases.get(t, 0) * share // 100, wanted_slots=wanted)
            for t, share, wanted in zip("abc", shares, wants, strict=True)
            if known
        }
        capacity = known.report.capacity_slots if known else 1
        report = Report(replica_id=replica_id, capacity_slots=capacity, tenants=uses)
        if held:
            self.ledger.renew_lease(report, epoch=epoch, now=self.now)
            assert self.ledger.leases.replicas[replica_id].deadline_s == self.now + TTL_S
        else:
            with pytest.raises(errors.StaleEtagError):
                self.ledger.renew_lease(report, epoch=epoch, now=self.now)
            assert self.ledger.leases.replicas.get(replica_id) is known

    @rule(stream=consumes(streams))
    def close_lease(self, stream):
        replica_id, epoch = stream
        held = self.ledger.leases.holds(replica_id, epoch)
        before = self.ledger.leases.replicas.get(replica_id)
        self.ledger.close_lease(replica_id, epoch=epoch)
        after = self.ledger.leases.replicas.get(replica_id)
        assert (after.leases == before.leases and not after.connected) if held else after is before

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

    @invariant()
    def no_slot_is_granted_twice(self):
        """A replica believes its last lease until the deadline, whatever the ledger forgot meanwhile."""
        for tenant in self.ledger.state.tenants.values():
            self.highest[tenant.tenant_id] = max(self.highest[tenant.tenant_id], tenant.limit_slots)
        for replica_id, replica in self.ledger.leases.replicas.items():
            if replica.connected:
                self.told[replica_id] = (replica.leases, replica.deadline_s)
        believed = [leases for leases, deadline_s in self.told.values() if deadline_s > self.now]
        for tenant_id, highest in self.highest.items():
            assert sum(leases.get(tenant_id, 0) for leases in believed) <= highest

    @invariant()
    def guarantees_come_first(self):
        """Who wants a slot at a replica and has less than its guarantee meets only what is reserved or due there."""
        replicas = self.ledger.leases.replicas
        if self.ledger.leases.num_replicas != len(replicas):
            return  # after a restart nothing is granted until all are back
        totals = {t: sum(r.leases.get(t, 0) for r in replicas.values()) for t in self.ledger.state.tenants}
        for replica in filter(lambda replica: replica.connected, replicas.values()):
            for tenant_id, tenant in self.ledger.state.tenants.items():
                use = replica.report.tenants.get(tenant_id, TenantUse())
                short = replica.leases[tenant_id] < use.reserved_slots + use.wanted_slots
                if short and totals[tenant_id] < tenant.guaranteed_slots:
                    self._holds_no_more_than_is_due(replica, totals, alone=len(replicas) == 1)

    def _holds_no_more_than_is_due(self, replica, totals, *, alone):
        for tenant_id, tenant in self.ledger.state.tenants.items():
            use, lease = replica.report.tenants.get(tenant_id, TenantUse()), replica.leases[tenant_id]
            assert lease <= use.reserved_slots + use.wanted_slots, "lent while a guarantee is not met"
            if alone:
                assert lease <= max(tenant.guaranteed_slots, use.reserved_slots), "above one guarantee, below another"

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
