"""Who is told before its next renewal: whoever another waits for, or wants what it is given; nobody else."""

from dataclasses import replace

from reasonserve.controller.ledger import Ledger
from reasonserve.controller.records import Report, RequestBudget, Tenant, TenantUse


def _tenant(tenant_id, limit):
    return Tenant(
        tenant_id=tenant_id,
        display_name="",
        weight=1,
        guaranteed_slots=0,
        limit_slots=limit,
        request_budget=RequestBudget(min_tokens=32, default_tokens=64, max_tokens=64),
    )


class Replicas:
    """A ledger with two tenants, and replicas that say which answer is in force."""

    def __init__(self, **limits):
        self.ledger = Ledger(lease_ttl_s=10.0, now=0.0, at_once=False)
        for tenant_id, limit in limits.items():
            self.ledger.apply(self.ledger.create_tenant(_tenant(tenant_id, limit)))
        self.epochs = {}

    def leases(self, replica_id):
        return self.ledger.leases.replicas[replica_id].leases

    def report(self, replica_id, confirmed=0, model="m", **wanted):
        """Joins or renews; `confirmed` is the number of the answer that is in force."""
        uses = {t: TenantUse(wanted_slots=slots) for t, slots in wanted.items()}
        report = Report(replica_id=replica_id, model=model, capacity_slots=100, tenants=uses, applied_seq=confirmed)
        if replica_id in self.epochs:
            self.ledger.renew_lease(report, epoch=self.epochs[replica_id], now=0.0)
            return
        change = self.ledger.join_replicas(replica_id)
        self.ledger.apply(change)
        self.epochs[replica_id] = change.revision
        self.ledger.open_lease(report, epoch=change.revision, now=0.0)

    def settle(self):
        return set(self.ledger.settle())

    def tell(self, *replica_ids):
        for replica_id in replica_ids:
            self.ledger.tell_lease(replica_id)


def _with_all_at_r0(**limits):
    """Returns replicas of which r0 alone is there, leased 100 slots of a, which it has in force."""
    replicas = Replicas(**limits)
    replicas.report("r0", a=100)
    replicas.settle()
    replicas.tell("r0")
    replicas.report("r0", confirmed=1, a=100)
    assert replicas.settle() == set()
    assert replicas.leases("r0")["a"] == 100
    return replicas


def test_who_holds_what_another_waits_for_is_told_once_and_who_waited_when_it_is_free():
    replicas = _with_all_at_r0(a=100)
    replicas.report("r0", confirmed=1)
    replicas.report("r1", a=70)
    assert "r0" in replicas.settle()
    assert (replicas.leases("r0"), replicas.leases("r1")) == ({"a": 30}, {"a": 0})
    replicas.tell("r0", "r1")
    replicas.report("r1", confirmed=1, a=71)
    replicas.report("r1", confirmed=1, a=70)
    assert replicas.settle() == set()
    replicas.report("r0", confirmed=2)
    assert replicas.settle() == {"r1"}
    assert replicas.leases("r1") == {"a": 70}


def test_what_is_lent_anew_waits_for_the_renewal():
    replicas = _with_all_at_r0(a=100, b=1000)
    replicas.report("r0", confirmed=1)
    assert replicas.settle() == set()
    assert replicas.leases("r0")["b"] > 0


def test_what_was_taken_in_silence_is_told_once_another_waits_for_it():
    """Slots of a at r0 go to b, which wants none; then a wants them at a replica of another model."""
    replicas = _with_all_at_r0(a=250, b=1000)
    replicas.report("r0", confirmed=1)
    replicas.report("r1", model="n", a=100)
    assert replicas.settle() == {"r1"}
    replicas.tell("r1")
    for _ in range(20):  # what is lent moves by an eighth less than it would
        assert replicas.settle() == set()
    assert (replicas.leases("r0")["a"], replicas.leases("r1")["a"]) == (0, 100)
    replicas.report("r2", model="n", a=100)
    assert replicas.settle() == {"r0", "r2"}
    assert (replicas.leases("r0")["a"], replicas.leases("r2")["a"]) == (0, 50)
    replicas.tell("r0", "r2")
    replicas.report("r0", confirmed=2)
    assert replicas.settle() == {"r2"}
    assert replicas.leases("r2")["a"] == 100


def test_tenants_that_are_new_at_a_replica_are_told():
    replicas = _with_all_at_r0(a=100)
    replicas.ledger.apply(replicas.ledger.create_tenant(_tenant("b", 10)))
    assert replicas.settle() == {"r0"}
    replicas.tell("r0")
    assert replicas.settle() == set()


def test_terms_that_change_are_told_though_the_slots_stay():
    replicas = _with_all_at_r0(a=100)
    given = replace(_tenant("a", 100), weight=2)
    replicas.ledger.apply(replicas.ledger.update_tenant(given, mask=["weight"], etag=""))
    assert replicas.settle() == {"r0"}
    assert replicas.leases("r0") == {"a": 100}
    assert replicas.settle() == set()
