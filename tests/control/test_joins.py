"""Replicas that join at once share a transaction, and with it what becomes of it."""

import asyncio
import threading

import pytest

from reasonserve.controller.core import Controller
from reasonserve.controller.records import Change, Report
from reasonserve.controller.store import Store
from reasonserve.errors import StaleEtagError, UnavailableError


class GatedStore(Store):
    """Keeps what was written; a transaction begins once `gate` is open, and is refused while `broken`."""

    def __init__(self, url):
        super().__init__(url)
        self.gate, self.entered = threading.Event(), threading.Event()
        self.broken = False
        self.written = []

    def write(self, change):
        self.entered.set()
        assert self.gate.wait(60)
        if self.broken:
            raise UnavailableError("broken")
        super().write(change)
        self.written.append(change)


@pytest.fixture
def store(database_url):
    opened = GatedStore(database_url)
    yield opened
    opened.gate.set()
    opened.close()


@pytest.fixture
async def controller(store):
    made = Controller(lease_ttl_s=10.0, clock=lambda: 0.0)
    await made.lead(store)
    yield made
    made.ledger.check_integrity()
    made.close()


def _report(replica_id, capacity_slots=100):
    return Report(replica_id=replica_id, capacity_slots=capacity_slots)


async def _join(controller, *reports):
    """Begins to join in order; returns when all wait."""
    tasks = [asyncio.create_task(controller.open_lease(report)) for report in reports]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def _join_behind(controller, store, *reports):
    """Has `first` keep the database busy while the others join."""
    (first,) = await _join(controller, _report("first"))
    assert await asyncio.to_thread(store.entered.wait, 60)
    return first, await _join(controller, *reports)


async def test_who_joins_while_the_database_is_busy_is_leased_in_one_transaction(controller, store):
    ids = [f"r{i}" for i in range(20)]
    first, others = await _join_behind(controller, store, *map(_report, ids))
    store.gate.set()
    epoch, epochs = await first, await asyncio.gather(*others)
    assert (epoch, set(epochs)) == (1, {2})
    assert [len(change.events) for change in store.written] == [1, 20]
    assert store.load().epochs == {"first": 1} | dict.fromkeys(ids, 2)
    book = controller.ledger.leases
    assert {r: replica.epoch for r, replica in book.replicas.items()} == store.load().epochs


async def test_an_epoch_that_replicas_share_is_each_ones_own(controller, store):
    store.gate.set()
    epochs = await asyncio.gather(*await _join(controller, _report("r0"), _report("r1")))
    assert epochs == [1, 1]
    book = controller.ledger.leases
    controller.close_lease("r0", 1)
    assert (book.replicas["r0"].connected, book.replicas["r1"].connected) == (False, True)
    controller.renew_lease(_report("r1", 50), 1)
    assert [book.replicas[r].report.capacity_slots for r in ("r0", "r1")] == [100, 50]
    assert await controller.open_lease(_report("r0")) == 2
    with pytest.raises(StaleEtagError):
        controller.renew_lease(_report("r0"), 1)
    controller.renew_lease(_report("r1"), 1)


async def test_when_the_transaction_fails_none_of_its_replicas_is_leased_and_each_is_told(controller, store):
    first, others = await _join_behind(controller, store, _report("r0"), _report("r1"))
    store.broken = True
    store.gate.set()
    results = await asyncio.gather(first, *others, return_exceptions=True)
    assert [type(result) for result in results] == [UnavailableError] * 3
    assert (controller.ledger.state.revision, dict(controller.ledger.leases.replicas)) == (0, {})
    store.broken = False
    assert await controller.open_lease(_report("r1")) == 1
    assert list(store.load().epochs) == ["r1"]


async def test_of_two_streams_of_one_replica_the_newer_is_leased(controller, store):
    first, others = await _join_behind(controller, store, _report("r0", 1), _report("r1", 2), _report("r0", 3))
    store.gate.set()
    await first
    older, other, newer = await asyncio.gather(*others, return_exceptions=True)
    assert isinstance(older, UnavailableError)
    assert (other, newer) == (2, 2)
    assert controller.ledger.leases.replicas["r0"].report.capacity_slots == 3
    assert len(store.written[1].events) == 2


async def test_who_gives_up_before_its_turn_is_not_leased(controller, store):
    first, (gone, stays) = await _join_behind(controller, store, _report("gone"), _report("stays"))
    gone.cancel()
    store.gate.set()
    assert (await first, await stays) == (1, 2)
    assert list(store.load().epochs) == ["first", "stays"]


@pytest.mark.parametrize("hops", range(8))
async def test_who_leaves_while_its_transaction_runs_is_known_to_have_left(controller, store, hops):
    (leaves,) = await _join(controller, _report("leaves"))
    assert await asyncio.to_thread(store.entered.wait, 60)
    store.gate.set()
    # Before, as and after the transaction ends.
    while hops and not controller.ledger.leases.replicas:
        await asyncio.sleep(0)
    for _ in range(hops):
        await asyncio.sleep(0)
    if leaves.done():  # it was answered: whoever holds the stream closes it
        return
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    await controller.open_lease(_report("next"))
    assert {r: replica.connected for r, replica in controller.ledger.leases.replicas.items()} == {
        "leaves": False,
        "next": True,
    }


async def test_who_joined_one_that_stands_by_is_not_leased_once_it_leads(store):
    store.gate.set()
    controller = Controller(lease_ttl_s=10.0)
    with pytest.raises(UnavailableError, match="stands by"):
        await controller.open_lease(_report("early"))
    await controller.lead(store)
    await controller.open_lease(_report("r0"))
    assert list(store.load().epochs) == ["r0"]


async def test_what_changes_nothing_does_not_ask_the_database(controller, store):
    store.broken = True
    store.gate.set()
    seen = []
    change = await controller.commit(lambda: Change(0, ()), seen.append)
    assert (seen, store.entered.is_set(), controller.ledger.state.revision) == ([change], False, 0)
