"""The ledger under any sequence of transitions: invariants hold, illegal ones change nothing, a restart too."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from reasonserve import errors
from reasonserve.controller.ledger import Ledger
from reasonserve.controller.records import Change, Key, Profile, Report, RequestBudget, Tenant, TenantUse
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

    @initialize()
    def start(self):
        self.now = 0.0
        self.ledger = Ledger(lease_ttl_s=TTL_S, now=self.now)

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
        assert self.ledger.state.revision == before.revision + bool(change.events)
        return change

    @rule(tenant_id=TENANT_IDS, low=SLOTS, high=SLOTS, weight=st.integers(0, 4))
    def create_tenant(self, tenant_id, low, high, weight):
        self.do(lambda: self.ledger.create_tenant(_tenant(tenant_id, low, high, weight)))

    @rule(tenant_id=TENANT_IDS, low=SLOTS, high=SLOTS, etag=st.sampled_from(["", "stored", "r0"]))
    def update_tenant(self, tenant_id, low, high, etag):
        stored = self.ledger.state.tenants.get(tenant_id)
        etag = stored.etag if stored and etag == "stored" else etag
        mask = ["guaranteed_slots", "limit_slots"]
        self.do(lambda: self.ledger.update_tenant(_tenant(tenant_id, low, high), mask=mask, etag=etag))

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
    def open_lease(self, replica_id, capacity):
        epochs = [replica.epoch for replica in self.ledger.leases.replicas.values()]
        change = self.do(lambda: self.ledger.join_replica(replica_id))
        report = Report(replica_id=replica_id, capacity_slots=capacity)
        self.ledger.open_lease(report, epoch=change.revision, now=self.now)
        assert all(change.revision > epoch for epoch in epochs)
        return replica_id, change.revision

    @rule(stream=streams, shares=st.lists(st.integers(0, 100), min_size=3, max_size=3), wanted=SLOTS)
    def renew_lease(self, stream, shares, wanted):
        """Reports reservations that the lease allowed, as an honest replica does."""
        replica_id, epoch = stream
        held = self.ledger.leases.holds(replica_id, epoch)
        known = self.ledger.leases.replicas.get(replica_id)
        uses = {
            t: TenantUse(reserved_slots=known.leases.get(t, 0) * share // 100, wanted_slots=wanted)
            for t, share in zip("abc", shares, strict=True)
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
        self.ledger.check_integrity()
        assert {*self.ledger.leases.replicas} <= {*self.ledger.state.epochs}


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestLedger = LedgerMachine.TestCase


def _with_tenant(**fields):
    ledger = Ledger(lease_ttl_s=TTL_S, now=0.0)
    ledger.apply(ledger.create_tenant(_tenant("a", **fields)))
    return ledger


def _open(ledger, replica_id, now=0.0, **uses):
    change = ledger.join_replica(replica_id)
    ledger.apply(change)
    tenants = {t: TenantUse(reserved_slots=reserved) for t, reserved in uses.items()}
    ledger.open_lease(
        Report(replica_id=replica_id, capacity_slots=100, tenants=tenants), epoch=change.revision, now=now
    )
    return change.revision


def test_a_change_planned_on_an_older_revision_is_refused():
    ledger = _with_tenant()
    stale = ledger.delete_tenant("a")
    ledger.apply(ledger.update_tenant(_tenant("a", limit=5), mask=["limit_slots"], etag=""))
    before = ledger.state.snapshot()
    with pytest.raises(errors.StaleEtagError):
        ledger.apply(stale)
    assert ledger.state.snapshot() == before


def test_a_change_without_events_keeps_the_revision():
    ledger = _with_tenant()
    ledger.apply(ledger.expire(now=100.0))
    assert ledger.state.revision == 1


def test_after_a_restart_leases_cover_reservations_until_the_others_are_back():
    ledger = _with_tenant(limit=100)
    _open(ledger, "r0")
    _open(ledger, "r1")
    ledger = Ledger(ledger.state.snapshot(), lease_ttl_s=TTL_S, now=50.0)
    _open(ledger, "r0", now=51.0, a=30)
    assert ledger.leases.replicas["r0"].leases == {"a": 30}
    _open(ledger, "r1", now=52.0)
    assert sum(replica.leases["a"] for replica in ledger.leases.replicas.values()) == 100


def test_after_a_restart_a_replica_that_stays_away_lapses():
    ledger = _with_tenant(limit=100)
    _open(ledger, "r0")
    _open(ledger, "r1")
    ledger = Ledger(ledger.state.snapshot(), lease_ttl_s=TTL_S, now=50.0)
    _open(ledger, "r0", now=51.0)
    ledger.apply(ledger.expire(now=60.0))
    assert ledger.leases.replicas["r0"].leases == {"a": 100}
    assert set(ledger.state.epochs) == {"r0"}


def test_after_a_restart_a_single_replica_has_its_lease_back_at_once():
    ledger = _with_tenant(limit=100)
    _open(ledger, "r0")
    ledger = Ledger(ledger.state.snapshot(), lease_ttl_s=TTL_S, now=50.0)
    _open(ledger, "r0", now=50.0)
    assert ledger.leases.replicas["r0"].leases == {"a": 100}


def test_integrity_finds_a_key_without_its_tenant():
    ledger = _with_tenant()
    ledger.apply(ledger.add_key(Key(key_id="k", tenant_id="a", secret_hash="h")))
    broken = ledger.state.snapshot()
    with pytest.raises(AssertionError, match="a key without its tenant"):
        State(type(broken)(revision=broken.revision, keys=broken.keys))


def test_events_carry_the_revision_they_were_planned_for():
    ledger = _with_tenant()
    change = ledger.update_tenant(_tenant("a", limit=5), mask=["limit_slots"], etag="r1")
    assert isinstance(change, Change)
    assert (change.revision, change.events[0].tenant.etag) == (2, "r2")
