"""What a lease allows, while it is in force and after."""

import pytest

from reasonserve.errors import UnavailableError
from reasonserve.replica.lease import Lease, LeaseTerms
from reasonserve.replica.sizing import TenantTerms

POOL, TTL = 1000, 10.0


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


def leased(*tenants, num_replicas=2, epoch=1):
    made = LeaseTerms(pool_slots=POOL)
    made.apply(lease(*tenants, num_replicas=num_replicas, epoch=epoch), granted_at=0.0)
    return made


def lease(*tenants, num_replicas=2, epoch=1):
    return Lease(epoch=epoch, ttl_s=TTL, tenants={t.tenant_id: t for t in tenants}, num_replicas=num_replicas)


def test_without_a_lease_there_are_no_terms():
    made = LeaseTerms(pool_slots=POOL)
    assert not made.is_known("a")
    assert made.in_force(now=0.0) == {}
    with pytest.raises(UnavailableError):
        made.allowed_slots("a", now=0.0)


def test_a_lapsed_lease_leaves_the_guaranteed_share():
    made = leased(terms())
    assert made.allowed_slots("a", now=TTL - 0.1) == 400
    assert made.allowed_slots("a", now=TTL) == 300 // 2
    assert (made.in_force(now=TTL - 0.1), made.in_force(now=TTL)) == ({"a": 400}, {})


def test_a_lapsed_lease_is_never_zero_for_a_guaranteed_tenant():
    assert leased(terms(guaranteed=2), num_replicas=5).allowed_slots("a", now=TTL) == 1
    assert leased(terms(guaranteed=0)).allowed_slots("a", now=TTL) == 0


def test_never_more_than_the_limit():
    assert leased(terms(slots=900, limit=600)).allowed_slots("a", now=1.0) == 600
    assert leased(terms(guaranteed=300, limit=100), num_replicas=1).allowed_slots("a", now=TTL) == 100


def test_the_only_replica_grants_the_guarantee_without_asking():
    assert leased(terms(slots=0), num_replicas=1).allowed_slots("a", now=1.0) == 300
    assert leased(terms(slots=0), num_replicas=2).allowed_slots("a", now=1.0) == 0


def test_home_shares_fit_the_pool_even_where_guarantees_do_not_fit_the_cluster():
    assert leased(terms("a"), terms("b", guaranteed=0)).home_shares == {"a": 150}
    overcommitted = leased(terms("a", guaranteed=3000), terms("b", guaranteed=1000)).home_shares
    assert overcommitted == {"a": 750, "b": 250}


def test_an_older_epoch_changes_nothing_while_the_newer_lease_is_in_force():
    made = leased(terms(slots=400), epoch=7)
    made.apply(lease(terms(slots=10), epoch=6), granted_at=1.0)
    assert made.allowed_slots("a", now=2.0) == 400
    made.apply(lease(terms(slots=10), epoch=6), granted_at=TTL)
    assert made.allowed_slots("a", now=TTL) == 10
