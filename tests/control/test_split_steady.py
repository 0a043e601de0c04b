"""The split over time and at size: it does not flap, follows what really changed, and its work is bounded."""

import pytest

from reasonserve.controller import split
from reasonserve.controller.split import ReplicaLoad, TenantShare, split_leases


def _moved(before, after):
    return sum(abs(after[r][t] - slots) for r, leases in before.items() for t, slots in leases.items())


def test_demand_that_flickers_moves_no_lent_slot():
    """A tenant wants a little less at one replica: without memory, what is lent would follow to the other."""
    tenants = {"a": TenantShare(weight=1, guaranteed=0, limit=500)}

    def replicas(wanted, last):
        return {
            "r0": ReplicaLoad(capacity=800, reserved={"a": 100}, wanted={"a": wanted}, leased=last.get("r0", {})),
            "r1": ReplicaLoad(capacity=800, reserved={"a": 100}, leased=last.get("r1", {})),
        }

    first = split_leases(tenants, replicas(210, {}))
    assert first == {"r0": {"a": 310}, "r1": {"a": 190}}
    assert split_leases(tenants, replicas(205, {})) == {"r0": {"a": 305}, "r1": {"a": 195}}
    assert split_leases(tenants, replicas(205, first)) == first
    much_less = split_leases(tenants, replicas(0, first))
    assert _moved(first, much_less) > 40


def test_a_new_replica_is_lent_its_part_all_the_same():
    tenants = {"a": TenantShare(weight=1, guaranteed=0, limit=100)}
    leases = split_leases(tenants, {"r0": ReplicaLoad(capacity=100)})
    replicas = {"r0": ReplicaLoad(capacity=100, leased=leases["r0"]), "r1": ReplicaLoad(capacity=100)}
    assert split_leases(tenants, replicas)["r1"]["a"] >= 40


def test_a_limit_and_a_guarantee_bind_over_the_replicas_of_several_models():
    """The split knows slots, not models: demand at one model's replicas draws on the whole of both."""
    tenants = {
        "a": TenantShare(weight=1, guaranteed=80, limit=100),
        "b": TenantShare(weight=1, guaranteed=80, limit=200),
    }
    small, large = ReplicaLoad(capacity=100, wanted={"a": 90, "b": 90}), ReplicaLoad(capacity=100, wanted={"b": 20})
    leases = split_leases(tenants, {"small-model": small, "large-model": large})
    assert sum(model["a"] for model in leases.values()) <= 100
    assert leases["small-model"]["a"] >= 50
    assert sum(model["b"] for model in leases.values()) >= 70


@pytest.mark.parametrize("count", [4, 16])
def test_work_grows_with_cells_not_with_their_square(count, monkeypatch):
    """Counts what filling looks at: rounds must not multiply with the size of the cluster."""
    looked = 0
    fill = split.water_fill

    def counted(room, floors, caps, weights):
        nonlocal looked
        looked += len(floors)
        return fill(room, floors, caps, weights)

    monkeypatch.setattr(split, "water_fill", counted)
    tenants = {f"t{i}": TenantShare(weight=1 + i % 3, guaranteed=40, limit=400) for i in range(count)}
    wanted = [{f"t{(r * 7 + i) % count}": 30 * i for i in range(count)} for r in range(count)]
    replicas = {f"r{r}": ReplicaLoad(capacity=100, wanted=wanted[r]) for r in range(count)}
    split_leases(tenants, replicas)
    assert looked <= 40 * count * count
