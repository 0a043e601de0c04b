"""The split of the cluster's memory into leases: exact sums, limits, guarantees, no idle waste."""

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonserve.controller.split import ReplicaLoad, TenantShare, split_leases, water_fill

TENANT_IDS = ["a", "b", "c", "d"]
REPLICA_IDS = ["r0", "r1", "r2"]
slots = st.integers(0, 300)


@st.composite
def fills(draw):
    entries = draw(st.lists(st.tuples(slots, slots, st.integers(1, 9)), min_size=1, max_size=6))
    floors = [min(low, high) for low, high, _ in entries]
    caps = [max(low, high) for low, high, _ in entries]
    return draw(st.integers(0, 900)), floors, caps, [weight for _, _, weight in entries]


@st.composite
def clusters(draw, guarantees_fit=False):
    capacities = {r: draw(st.integers(1, 400)) for r in REPLICA_IDS[: draw(st.integers(1, 3))]}
    left = sum(capacities.values()) if guarantees_fit else 10_000
    tenants = {}
    for tenant_id in TENANT_IDS[: draw(st.integers(1, 4))]:
        guaranteed = draw(st.integers(0, min(left, 400)))
        left -= guaranteed
        tenants[tenant_id] = TenantShare(
            weight=draw(st.integers(1, 5)), guaranteed=guaranteed, limit=guaranteed + draw(slots)
        )
    by_tenant = st.dictionaries(st.sampled_from([*tenants, "deleted"]), slots, max_size=5)
    replicas = {
        r: ReplicaLoad(
            capacity=capacity,
            reserved=draw(by_tenant),
            wanted=draw(by_tenant),
            held=draw(st.none() | by_tenant.map(lambda d: {t: n for t, n in d.items() if t != "deleted"})),
        )
        for r, capacity in capacities.items()
    }
    return tenants, replicas


def _floor(load, tenant_id):
    return (load.reserved if load.held is None else load.held).get(tenant_id, 0)


def _taken(load, tenants):
    """Slots of a replica that no split can move."""
    return sum(_floor(load, t) for t in tenants) + sum(n for t, n in load.reserved.items() if t not in tenants)


@given(fills())
def test_filling_is_exact_and_within_bounds(fill):
    room, floors, caps, _ = fill
    values = water_fill(*fill)
    assert sum(values) == max(sum(floors), min(room, sum(caps)))
    assert all(low <= value <= high for low, value, high in zip(floors, values, caps, strict=True))


@given(fills())
def test_filling_is_weighted_max_min(fill):
    _, floors, caps, weights = fill
    values = water_fill(*fill)
    for i, value in enumerate(values):
        for j, other in enumerate(values):
            # Nobody who could take more stands more than a slot below the level of one who was raised.
            if value < caps[i] and other > floors[j]:
                assert (value + 1) * weights[j] >= (other - 1) * weights[i]


@pytest.mark.parametrize(
    ("room", "floors", "caps", "weights", "expected"),
    [
        (10, [0, 0, 4], [2, 9, 9], [1, 1, 1], [2, 4, 4]),
        (10, [0, 0], [9, 9], [1, 4], [2, 8]),
        (11, [0, 0], [9, 9], [1, 1], [6, 5]),
        (3, [2, 2], [9, 9], [1, 1], [2, 2]),
        (100, [0, 0], [9, 9], [1, 1], [9, 9]),
    ],
)
def test_filling_by_hand(room, floors, caps, weights, expected):
    assert water_fill(room, floors, caps, weights) == expected


@given(clusters())
def test_sums_never_exceed_capacity_nor_limit(cluster):
    tenants, replicas = cluster
    leases = split_leases(*cluster)
    for r, load in replicas.items():
        strangers = sum(n for t, n in load.reserved.items() if t not in tenants)
        assert sum(leases[r].values()) + strangers <= max(load.capacity, _taken(load, tenants))
    for t, tenant in tenants.items():
        immovable = sum(_floor(load, t) for load in replicas.values())
        assert sum(leases[r][t] for r in replicas) <= max(tenant.limit, immovable)


@given(clusters())
def test_reserved_slots_stay_and_held_leases_do_not_move(cluster):
    tenants, replicas = cluster
    leases = split_leases(*cluster)
    for r, load in replicas.items():
        for t in tenants:
            assert leases[r][t] >= _floor(load, t)
            if load.held is not None:
                assert leases[r][t] == load.held.get(t, 0)


@given(clusters())
def test_no_slot_lies_idle_that_a_tenant_may_hold(cluster):
    tenants, replicas = cluster
    leases = split_leases(*cluster)
    for r, load in replicas.items():
        strangers = sum(n for t, n in load.reserved.items() if t not in tenants)
        full = sum(leases[r].values()) + strangers >= load.capacity
        for t, tenant in tenants.items():
            at_limit = sum(leases[q][t] for q in replicas) >= tenant.limit
            assert full or at_limit or load.held is not None or leases[r][t] >= min(tenant.limit, load.capacity)


@given(clusters(guarantees_fit=True))
def test_demand_up_to_the_home_shares_is_met(cluster):
    """Wherever it is best met: a tenant may be moved to another replica that it has demand for, and loses nothing."""
    tenants, replicas = cluster
    whole = sum(load.capacity for load in replicas.values())
    home = {
        r: {t: tenant.guaranteed * load.capacity // whole for t, tenant in tenants.items()}
        for r, load in replicas.items()
    }
    # Reservations beyond the home shares are cut off: they could not be moved.
    within = {
        r: ReplicaLoad(
            capacity=load.capacity,
            reserved={t: min(n, home[r][t]) for t, n in load.reserved.items() if t in tenants},
            wanted=load.wanted,
        )
        for r, load in replicas.items()
    }
    leases = split_leases(tenants, within)
    for t in tenants:
        due = sum(min(_demand(load, t), home[r][t]) for r, load in within.items())
        assert sum(leases[r][t] for r in within) >= due


def _demand(load, tenant_id):
    return load.reserved.get(tenant_id, 0) + load.wanted.get(tenant_id, 0)


def _most(capacities, edges, totals):
    """Returns the largest flow from tenants to replicas, as the smallest cut: all choices of replicas are tried."""
    chosen = itertools.product([False, True], repeat=len(capacities))
    cuts = (
        sum(c for c, cut in zip(capacities, cuts, strict=True) if cut)
        + sum(
            min(total, sum(e for e, cut in zip(row, cuts, strict=True) if not cut))
            for row, total in zip(edges, totals, strict=True)
        )
        for cuts in chosen
    )
    return min(cuts)


@given(clusters(guarantees_fit=True))
def test_guarantees_are_met_as_far_as_any_placement_could(cluster):
    """Nobody is short of its guarantee who could be served by moving others between replicas."""
    tenants, replicas = cluster
    wanted = {r: ReplicaLoad(capacity=load.capacity, wanted=load.wanted) for r, load in replicas.items()}
    leases = split_leases(tenants, wanted)
    served = [min(tenants[t].guaranteed, _served(leases, wanted, t)) for t in tenants]
    edges = [[_demand(load, t) for load in wanted.values()] for t in tenants]
    guarantees = [tenant.guaranteed for tenant in tenants.values()]
    assert sum(served) == _most([load.capacity for load in wanted.values()], edges, guarantees)


def _served(leases, replicas, tenant_id):
    return sum(min(leases[r][tenant_id], _demand(load, tenant_id)) for r, load in replicas.items())


@given(clusters(guarantees_fit=True))
def test_unmet_guaranteed_demand_means_a_replica_full_of_demand(cluster):
    tenants, replicas = cluster
    leases = split_leases(*cluster)
    for t, tenant in tenants.items():
        if sum(leases[r][t] for r in replicas) >= tenant.guaranteed:
            continue
        for r, load in replicas.items():
            demand = load.reserved.get(t, 0) + load.wanted.get(t, 0)
            if load.held is None and leases[r][t] < demand:
                others = {u: load.reserved.get(u, 0) + load.wanted.get(u, 0) for u in tenants}
                assert all(leases[r][u] <= others[u] for u in tenants)


@given(clusters())
def test_the_order_of_the_mappings_does_not_matter(cluster):
    tenants, replicas = cluster
    backwards = split_leases(dict(reversed(tenants.items())), dict(reversed(replicas.items())))
    assert backwards == split_leases(tenants, replicas)


@given(slots, st.integers(1, 300))
def test_one_tenant_on_one_replica_gets_its_limit_or_the_capacity(limit, capacity):
    leases = split_leases(
        {"a": TenantShare(weight=1, guaranteed=0, limit=limit)}, {"r": ReplicaLoad(capacity=capacity)}
    )
    assert leases == {"r": {"a": min(limit, capacity)}}


@given(slots, slots)
def test_two_tenants_whose_limits_fit_both_get_their_limits(first, second):
    tenants = {t: TenantShare(weight=1, guaranteed=0, limit=n) for t, n in {"a": first, "b": second}.items()}
    assert split_leases(tenants, {"r": ReplicaLoad(capacity=first + second)}) == {"r": {"a": first, "b": second}}


def _with_leased(replicas, leases):
    return {r: dataclasses.replace(load, leased=leases[r]) for r, load in replicas.items()}


@given(clusters())
def test_a_split_that_follows_an_equal_one_moves_nothing(cluster):
    tenants, replicas = cluster
    first = split_leases(tenants, replicas)
    assert split_leases(tenants, _with_leased(replicas, first)) == first


@given(clusters(), st.data())
def test_the_last_split_breaks_no_rule_of_the_next(cluster, data):
    """Whatever was leased before, sums, limits and demand are as without it."""
    tenants, replicas = cluster
    leased = {r: {t: data.draw(slots) for t in tenants} for r in replicas}
    fresh, steady = (split_leases(tenants, loads) for loads in (replicas, _with_leased(replicas, leased)))
    for r, load in replicas.items():
        assert sum(steady[r].values()) == sum(fresh[r].values()) or sum(steady[r].values()) <= load.capacity
        assert sum(steady[r].values()) + sum(n for t, n in load.reserved.items() if t not in tenants) <= max(
            load.capacity, _taken(load, tenants)
        )
        for t in tenants:
            wanted = load.reserved.get(t, 0) + load.wanted.get(t, 0)
            assert steady[r][t] >= min(fresh[r][t], wanted)
    for t, tenant in tenants.items():
        floor = sum(_floor(load, t) for load in replicas.values())
        assert sum(leases[t] for leases in steady.values()) <= max(tenant.limit, floor)
