"""Requests that wait at the desk, and the engine that is told of new budgets; on a clock that the test moves."""

import asyncio

import pytest

from reasonserve.errors import BudgetExhaustedError
from reasonserve.replica.admission import Admission, Entry, Lease
from reasonserve.replica.desk import Desk
from reasonserve.replica.sizing import KvAsk, QueueLimits, TenantTerms

BUFFER = 16


class Engine:
    """Takes budgets for the requests that it knows."""

    def __init__(self):
        self.known = set()
        self.budgets = {}
        self.calls = 0

    async def set_budgets(self, budgets):
        await asyncio.sleep(0)
        self.calls += 1
        self.budgets |= {r: b for r, b in budgets.items() if r in self.known}
        return all(r in self.known for r in budgets)


class Parts:
    """A desk with a lease of some slots for tenant a."""

    def __init__(self, slots=252, queue_wait_s=30.0):
        self.now = 0.0
        self.changes = 0
        self.engine = Engine()
        self.admission = Admission(pool_slots=1000, buffer_tokens=BUFFER)
        self.desk = Desk(admission=self.admission, engine=self.engine, clock=lambda: self.now)
        self.desk.on_change(self.changed)
        self.lease(slots, queue_wait_s)

    def lease(self, slots, queue_wait_s=30.0):
        terms = TenantTerms(
            tenant_id="a",
            slots=slots,
            guaranteed_slots=0,
            limit_slots=1000,
            min_tokens=32,
            default_tokens=100,
            max_tokens=200,
            queue=QueueLimits(wait_s=queue_wait_s),
        )
        made = Lease(epoch=1, ttl_s=300.0, tenants={"a": terms}, num_replicas=2)
        self.desk.apply_lease(made, granted_at=0.0)

    def changed(self):
        self.changes += 1

    def enter(self, request_id, budget=100, outputs=1):
        entry = Entry(
            request_id=request_id,
            tenant_id="a",
            ask=KvAsk(budget_tokens=budget),
            prompt_ids=(hash(request_id) % 1000,) * 10,
            max_new_tokens=1000,
            outputs=outputs,
        )
        return asyncio.create_task(self.desk.enter(entry))


async def settled(*tasks):
    for _ in range(5):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


async def test_who_waits_is_admitted_when_another_leaves():
    parts = Parts()
    first, second, third = parts.enter("1"), parts.enter("2"), parts.enter("3")
    assert await settled(first, second, third) == [True, True, False]
    parts.now = 2.0
    parts.desk.leave("1")
    assert (await third).queued_s == 2.0
    for request_id in "23":
        parts.desk.leave(request_id)
    assert parts.admission.reserved_by("a") == 0


async def test_who_waits_is_admitted_when_the_lease_grows():
    parts = Parts(slots=100)
    waiting = parts.enter("1")
    assert await settled(waiting) == [False]
    parts.lease(126)
    assert await settled(waiting) == [True]


async def test_patience_ends_in_a_refusal_that_says_when_to_come_back():
    parts = Parts(queue_wait_s=0.05)
    await asyncio.gather(parts.enter("1"), parts.enter("2"))
    parts.now = 1.0
    parts.admission.progress("1", 900, now=1.0)
    parts.admission.progress("2", 960, now=1.0)  # 40 tokens are left, at 960 a second
    with pytest.raises(BudgetExhaustedError) as caught:
        await parts.enter("3")
    assert caught.value.retry_after_s == pytest.approx(0.1)
    assert parts.admission.queued_requests == 0


@pytest.mark.parametrize("when", ["while it waits", "as it is admitted"])
async def test_a_client_that_goes_leaves_nothing_behind(when):
    parts = Parts()
    await asyncio.gather(parts.enter("1"), parts.enter("2"))
    waiting = parts.enter("3")
    await settled(waiting)
    if when == "as it is admitted":
        parts.desk.leave("1")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    for request_id in "123":  # as the service does, however a request ends
        parts.desk.leave(request_id)
    assert (parts.admission.reserved_by("a"), parts.admission.queued_requests) == (0, 0)


async def test_all_squeezes_of_an_admission_are_one_message():
    parts = Parts(slots=390)
    parts.engine.known = {"1", "2", "3"}
    await asyncio.gather(*(parts.enter(name, budget=None) for name in "123"))
    await parts.enter("4", budget=None)
    await asyncio.sleep(0.05)
    assert parts.engine.calls == 1
    assert parts.engine.budgets == {name: parts.admission.budget_of(name) for name in "123"}
    assert max(parts.engine.budgets.values()) < 100


async def test_a_request_that_the_engine_does_not_know_yet_is_told_again():
    parts = Parts(slots=170)
    await parts.enter("1", budget=None)
    await parts.enter("2", budget=None)
    await asyncio.sleep(0.03)
    assert parts.engine.budgets == {}
    parts.engine.known = {"1"}
    await asyncio.sleep(0.1)
    assert parts.engine.budgets == {"1": parts.admission.budget_of("1")}
    calls = parts.engine.calls
    await asyncio.sleep(0.1)
    assert parts.engine.calls == calls
