"""The ledger, case by case: stale changes, restarts, integrity."""

import pytest

from reasonserve import errors
from reasonserve.controller.ledger import Ledger
from reasonserve.controller.records import Change, Key, Report, RequestBudget, Tenant, TenantUse
from reasonserve.controller.state import State

TTL_S = 10.0


def _tenant(tenant_id, guaranteed=0, limit=100, weight=1):
    return Tenant(
        tenant_id=tenant_id,
        display_name="",
        weight=weight,
        guaranteed_slots=guaranteed,
        limit_slots=limit,
        request_budget=RequestBudget(min_tokens=32, default_tokens=64, max_tokens=64),
    )


def _with_tenant(**fields):
    ledger = Ledger(lease_ttl_s=TTL_S, now=0.0)
    ledger.apply(ledger.create_tenant(_tenant("a", **fields)))
    return ledger


def _open(ledger, replica_id, now=0.0, **uses):
    change = ledger.join_replicas(replica_id)
    ledger.apply(change)
    tenants = {t: TenantUse(reserved_slots=reserved) for t, reserved in uses.items()}
    ledger.open_lease(
        Report(replica_id=replica_id, capacity_slots=100, tenants=tenants), epoch=change.revision, now=now
    )
    ledger.tell_lease(replica_id)
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
    ledger.apply(ledger.add_key(Key(key_id="k", tenant_id="a", secret_hash="h"), now_ns=0))
    broken = ledger.state.snapshot()
    with pytest.raises(AssertionError, match="a key without its tenant"):
        State(type(broken)(revision=broken.revision, keys=broken.keys))


def test_events_carry_the_revision_they_were_planned_for():
    ledger = _with_tenant()
    change = ledger.update_tenant(_tenant("a", limit=5), mask=["limit_slots"], etag="r1")
    assert isinstance(change, Change)
    assert (change.revision, change.events[0].tenant.etag) == (2, "r2")


def test_a_tenant_that_is_deleted_and_made_anew_is_not_granted_what_a_lost_replica_still_serves_on():
    ledger = _with_tenant(limit=100)
    ledger.close_lease("r0", epoch=_open(ledger, "r0"))
    ledger.apply(ledger.delete_tenant("a"))
    _open(ledger, "r1")
    ledger.apply(ledger.create_tenant(_tenant("a", limit=100)))
    assert ledger.leases.replicas["r0"].leases == {"a": 100}
    assert ledger.leases.replicas["r1"].leases == {"a": 0}
    ledger.apply(ledger.expire(now=TTL_S))
    assert not ledger.leases.replicas


def test_after_a_restart_a_claimed_lease_stays_in_force_until_the_others_are_back():
    ledger = _with_tenant(limit=100)
    _open(ledger, "r0")
    _open(ledger, "r1")
    ledger = Ledger(ledger.state.snapshot(), lease_ttl_s=TTL_S, now=50.0)
    change = ledger.join_replicas("r0")
    ledger.apply(change)
    claim = {"a": TenantUse(reserved_slots=10, leased_slots=60)}
    ledger.open_lease(
        Report(replica_id="r0", capacity_slots=100, tenants=claim, applied_seq=0), epoch=change.revision, now=51.0
    )
    assert ledger.leases.replicas["r0"].leases == {"a": 60}
    _open(ledger, "r1", now=52.0)
    assert ledger.leases.replicas["r0"].leases["a"] >= 10
    assert ledger.leases.replicas["r1"].leases["a"] <= 40
