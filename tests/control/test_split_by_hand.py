"""The split of small clusters that a reader can work out: who gets what, and where."""

from reasonserve.controller.split import ReplicaLoad, TenantShare, split_leases


def test_idle_memory_is_lent_and_a_guarantee_takes_it_back():
    tenants = {
        "gold": TenantShare(weight=1, guaranteed=60, limit=100),
        "free": TenantShare(weight=1, guaranteed=0, limit=100),
    }
    greedy = ReplicaLoad(capacity=100, reserved={"free": 30}, wanted={"free": 70})
    assert split_leases(tenants, {"r": greedy}) == {"r": {"gold": 0, "free": 100}}
    woken = ReplicaLoad(capacity=100, reserved={"free": 30}, wanted={"free": 70, "gold": 60})
    assert split_leases(tenants, {"r": woken}) == {"r": {"gold": 60, "free": 40}}
    late = ReplicaLoad(capacity=100, reserved={"free": 80}, wanted={"gold": 60})
    assert split_leases(tenants, {"r": late}) == {"r": {"gold": 20, "free": 80}}


def test_a_guarantee_follows_demand_to_the_replica_that_has_it():
    tenants = {
        "gold": TenantShare(weight=1, guaranteed=80, limit=80),
        "heavy": TenantShare(weight=9, guaranteed=0, limit=200),
    }
    replicas = {"r0": ReplicaLoad(capacity=100, wanted={"gold": 80, "heavy": 100}), "r1": ReplicaLoad(capacity=100)}
    assert split_leases(tenants, replicas) == {"r0": {"gold": 80, "heavy": 20}, "r1": {"gold": 0, "heavy": 100}}


def test_a_guarantee_is_met_by_moving_another_tenant_to_where_it_has_demand_too():
    tenants = {
        "fixed": TenantShare(weight=1, guaranteed=80, limit=80),
        "mobile": TenantShare(weight=1, guaranteed=80, limit=100),
    }
    replicas = {
        "r0": ReplicaLoad(capacity=100, wanted={"fixed": 80, "mobile": 80}),
        "r1": ReplicaLoad(capacity=100, wanted={"mobile": 80}),
    }
    leases = split_leases(tenants, replicas)
    assert leases["r0"]["fixed"] == 80
    assert leases["r0"]["mobile"] + leases["r1"]["mobile"] == 100


def test_fair_shares_are_of_the_cluster_not_of_each_replica():
    """Both want everything; the one that can go elsewhere does."""
    tenants = {t: TenantShare(weight=1, guaranteed=0, limit=200) for t in ("here", "anywhere")}
    replicas = {
        "r0": ReplicaLoad(capacity=100, wanted={"here": 100, "anywhere": 100}),
        "r1": ReplicaLoad(capacity=100, wanted={"anywhere": 100}),
    }
    assert split_leases(tenants, replicas) == {"r0": {"anywhere": 0, "here": 100}, "r1": {"anywhere": 100, "here": 0}}


def test_a_tenant_with_demand_is_lent_slots_of_the_models_that_it_demands_alone():
    tenants = {
        "a": TenantShare(weight=1, guaranteed=100, limit=150),
        "idle": TenantShare(weight=1, guaranteed=0, limit=9),
    }
    replicas = {
        "r0": ReplicaLoad(capacity=100, model="small", wanted={"a": 10}),
        "r1": ReplicaLoad(capacity=100, model="small"),
        "r2": ReplicaLoad(capacity=100, model="large"),
    }
    leases = split_leases(tenants, replicas)
    assert leases["r2"]["a"] == 0
    assert leases["r0"]["a"] + leases["r1"]["a"] == 150
    assert sum(row["idle"] for row in leases.values()) == 9
    both = {**replicas, "r2": ReplicaLoad(capacity=100, model="large", wanted={"a": 30})}
    assert split_leases(tenants, both)["r2"]["a"] >= 30


def test_a_limit_follows_demand_over_replicas():
    tenants = {"a": TenantShare(weight=1, guaranteed=0, limit=100)}
    replicas = {"r0": ReplicaLoad(capacity=100, wanted={"a": 90}), "r1": ReplicaLoad(capacity=100, wanted={"a": 10})}
    assert split_leases(tenants, replicas) == {"r0": {"a": 90}, "r1": {"a": 10}}


def test_no_replica_no_lease():
    assert split_leases({"a": TenantShare(weight=1, guaranteed=1, limit=2)}, {}) == {}
