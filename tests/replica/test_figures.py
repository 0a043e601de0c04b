"""What a replica counts, read back from a Prometheus page."""

import pytest
from prometheus_client import CollectorRegistry

from reasonserve.errors import BudgetExhaustedError
from reasonserve.kv import Handshake, KvCounters, KvRequest, RoundEvent
from reasonserve.replica.admission import Admission, Lease
from reasonserve.replica.figures import Figures, Gauges
from reasonserve.replica.request import Entry, Grant
from reasonserve.replica.sizing import KvAsk, QueueLimits, TenantTerms
from reasonserve.telemetry.prometheus import PrometheusRecorder

POOL = 1000
HANDSHAKE = Handshake(
    plugin_version="1",
    seams=(),
    num_layers=2,
    num_kv_heads=2,
    head_dim=4,
    pool_slots=POOL,
    bytes_per_slot=64,
    dtype="bfloat16",
    model_fingerprint="f",
)


@pytest.fixture
def page():
    return CollectorRegistry()


@pytest.fixture
def figures(page):
    return Figures(PrometheusRecorder(page), max_tenants=2, clock=iter(range(1000)).__next__)


def grant(budget, wished):
    kv = KvRequest(method="reasonalloc", budget_tokens=budget)
    return Grant(kv=kv, wished_tokens=wished, slots=10, queued_s=0.0)


def round_of(kept, evicted):
    return RoundEvent(
        unix_time_s=1.0,
        output_tokens=1,
        kept_cells=kept,
        evicted_cells=evicted,
        seconds=0.25,
        layer_budgets=(1.0,),
        head_min=1,
        head_max=1,
    )


def test_admissions_are_counted_by_result_and_their_wait(figures, page):
    with figures.admission("a") as admitted:
        admitted(grant(64, 64))
    with figures.admission("a") as admitted:
        admitted(grant(32, 64))
    with pytest.raises(BudgetExhaustedError), figures.admission("a"):
        raise BudgetExhaustedError("no room", retry_after_s=1.0)

    def count(result):
        return page.get_sample_value("reasonserve_admissions_total", {"tenant": "a", "result": result})

    assert [count(result) for result in ("admitted", "shrunk", "refused")] == [1, 1, 1]
    assert page.get_sample_value("reasonserve_queue_seconds_sum", {"tenant": "a"}) == 3  # each waits a tick


def test_each_round_and_squeeze_counts_once(figures, page):
    output = figures.output("a", "rkv")
    first, second = round_of(6, 4), round_of(5, 5)
    for counters in (
        KvCounters(),
        KvCounters(rounds=(first,)),
        KvCounters(rounds=(first,), squeezes=1),
        KvCounters(rounds=(first, second), squeezes=3),
        KvCounters(rounds=(first, second), squeezes=3),
    ):
        output.record(counters)
    tenant = {"tenant": "a"}
    assert page.get_sample_value("reasonserve_rounds_total", {"tenant": "a", "method": "rkv"}) == 2
    assert page.get_sample_value("reasonserve_round_seconds_count", {"method": "rkv"}) == 2
    assert page.get_sample_value("reasonserve_kept_cells_total", tenant) == 11
    assert page.get_sample_value("reasonserve_evicted_cells_total", tenant) == 9
    assert page.get_sample_value("reasonserve_squeezes_total", tenant) == 3


class Held:
    def standing(self):
        return 7, 1.5


def terms(tenant_id, slots):
    return TenantTerms(
        tenant_id=tenant_id,
        slots=slots,
        guaranteed_slots=0,
        limit_slots=slots,
        min_tokens=32,
        default_tokens=64,
        max_tokens=128,
        queue=QueueLimits(requests=0),
    )


def test_gauges_show_use_and_forget_nobody(figures, page):
    admission = Admission(pool_slots=POOL, buffer_tokens=16)
    tenants = {name: terms(name, 100 * (index + 3)) for index, name in enumerate("abcd")}
    admission.apply_lease(Lease(epoch=1, ttl_s=1e9, tenants=tenants, num_replicas=1), granted_at=0, now=0)
    gauges = Gauges(figures, admission=admission, handshake=HANDSHAKE, load=None, lease=Held())
    ask = KvAsk(method="full", budget_tokens=None, prompt_mode="pinned")
    entry = Entry(request_id="r", tenant_id="b", ask=ask, prompt_ids=(1, 2), max_new_tokens=18)
    admission.enter(entry, now=0)
    gauges.publish(used_slots=5)

    def shown(name, **labels):
        return page.get_sample_value(f"reasonserve_{name}", labels)

    assert (shown("capacity_slots"), shown("used_slots"), shown("slot_bytes")) == (POOL, 5, 64)
    assert (shown("lease_epoch"), shown("lease_age_seconds")) == (7, 1.5)
    assert (shown("reserved_slots", tenant="b"), shown("active_requests", tenant="b")) == (20, 1)
    # Two tenants have a label of their own; what the others may take is one sum.
    assert [shown("allowed_slots", tenant=label) for label in ("a", "b", "other")] == [300, 400, 500 + 600]
    admission.apply_lease(Lease(epoch=2, ttl_s=1e9, tenants={}, num_replicas=1), granted_at=1, now=1)
    gauges.publish(used_slots=0)
    assert shown("allowed_slots", tenant="a") == 0
