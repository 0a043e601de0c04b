"""The controller's shell: one ledger, its store, a clock, and the streams that wait for changes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from reasonserve.controller.journal import Journal
from reasonserve.controller.ledger import Ledger
from reasonserve.controller.records import Change, Report
from reasonserve.controller.splitter import Splitter
from reasonserve.controller.store import Store
from reasonserve.errors import UnavailableError

_LOG = logging.getLogger(__name__)
_RETRY_S = 1.0


class _Led(NamedTuple):
    """What a leader has and one that stands by has not."""

    store: Store
    ledger: Ledger
    journal: Journal


@dataclass(slots=True, eq=False)
class _Join:
    """A stream whose replica is to be leased; `epoch` is 0 until it is, `left` once nobody waits for it."""

    report: Report
    seq: int
    epoch: int = 0
    left: bool = False


class Controller:
    """Drives the ledger: decide, store, apply, wake.

    Belongs to one event loop. Reads go to `ledger` directly; writes go through here. It stands by,
    refusing both, until `lead`.

    Args:
        lease_ttl_s: A lease lapses this long after its last report.
        clock: Seconds, never going back.
        wall_clock: Nanoseconds since the epoch; tenants' keys expire by it.
        declared_slots: Capacity that guarantees are checked against; 0 means that of the live replicas.
    """

    def __init__(
        self,
        *,
        lease_ttl_s: float,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], int] = time.time_ns,
        declared_slots: int = 0,
    ) -> None:
        self._lease_ttl_s = lease_ttl_s
        self._declared_slots = declared_slots
        self._clock = clock
        self._wall_clock = wall_clock
        self._led: _Led | None = None
        self._writing = asyncio.Lock()
        self._waiting: set[asyncio.Event] = set()
        self._joining: dict[_Join, None] = {}  # in the order in which they came
        self._splitter = Splitter(lambda: self.ledger)
        self._closing = False

    async def lead(self, store: Store, *, margin_s: float = 0.0) -> None:
        """Takes the state over from a store; the caller closes it.

        Args:
            store: Where changes become durable.
            margin_s: How long an earlier leader may have gone on granting leases after it lost the lead.
        """
        snapshot = await asyncio.to_thread(store.load)
        # Leases from before are waited for by this clock; the margin makes them end later.
        now = self._clock() + margin_s
        ledger = Ledger(
            snapshot, lease_ttl_s=self._lease_ttl_s, now=now, declared_slots=self._declared_slots, at_once=False
        )
        self._led = _Led(store, ledger, Journal(snapshot.revision))

    @property
    def ledger(self) -> Ledger:
        """The state, to be read.

        Raises:
            UnavailableError: This controller stands by.
        """
        return self._leading.ledger

    @property
    def _leading(self) -> _Led:
        if self._led is None:
            raise UnavailableError("This controller stands by while another leads: call that one, or retry.")
        return self._led

    @property
    def closing(self) -> bool:
        """Whether streams should end because the process does."""
        return self._closing

    @property
    def splitter(self) -> Splitter:
        """Splits the memory and wakes lease streams."""
        return self._splitter

    def now(self) -> float:
        """Returns the clock that leases run on, in seconds."""
        return self._clock()

    def now_ns(self) -> int:
        """Returns the clock that tenants' keys expire by, in nanoseconds since the epoch."""
        return self._wall_clock()

    async def commit(self, plan: Callable[[], Change], then: Callable[[Change], None] | None = None) -> Change:
        """Makes a change durable, then true, then runs `then`; all or nothing.

        A caller that is cancelled meanwhile does not stop it: disk and memory must agree.

        Raises:
            ReasonServeError: What `plan` raised; nothing happened.
            UnavailableError: The store failed; nothing happened.
        """
        return await asyncio.shield(asyncio.ensure_future(self._commit(plan, then)))

    async def open_lease(self, report: Report, *, seq: int = 0) -> int:
        """Leases a replica anew and returns the epoch.

        Replicas that come while the database is busy are leased in one transaction, and share its revision as
        their epoch: after a restart all come at once. `seq` is the number of the stream's last answer.

        Raises:
            UnavailableError: The store failed, or a newer stream of the same replica came meanwhile.
        """
        join, batch = _Join(report, seq), list[_Join]()
        self._joining[join] = None

        def plan() -> Change:
            batch[:], self._joining = self._joining, {}
            return self.ledger.join_replicas(*{join.report.replica_id: None for join in batch})

        try:
            await self.commit(plan, lambda change: self._open_leases(batch, change.revision))
        except asyncio.CancelledError:
            join.left = True
            self.close_lease(report.replica_id, join.epoch)
            raise
        finally:
            # A stream that ended while it waited for its turn is not leased.
            self._joining.pop(join, None)
        if not join.epoch:
            # Another's commit took it along, and failed or leased a newer stream.
            raise UnavailableError("The lease was not opened: open the stream again.")
        return join.epoch

    def renew_lease(self, report: Report, epoch: int) -> None:
        """Takes a report and extends the lease; raises as `Ledger.renew_lease`."""
        self.ledger.renew_lease(report, epoch=epoch, now=self._clock())
        self._splitter.request()

    def close_lease(self, replica_id: str, epoch: int) -> None:
        """Notes that a stream ended."""
        self.ledger.close_lease(replica_id, epoch=epoch)

    async def expire(self) -> bool:
        """Drops the replicas whose leases lapsed; returns whether none is left.

        While the database fails they stay, and with them their slots: reads and renewals go on.
        """
        if not self.ledger.leases.lapsed(self._clock()):
            return True
        try:
            await self.commit(lambda: self.ledger.expire(self._clock()))
        except UnavailableError as error:
            _LOG.error("Lapsed leases are kept: %s", error)
            return False
        return True

    async def expire_forever(self) -> None:
        """Drops lapsed replicas as they lapse, until cancelled."""
        while True:
            now, book = self._clock(), self.ledger.leases
            # A lease opened while this sleeps cannot lapse sooner than one time to live from now.
            deadline_s = min(book.next_deadline_s or now + book.lease_ttl_s, now + book.lease_ttl_s)
            await asyncio.sleep(max(0.01, deadline_s - now))
            if not await self.expire():
                await asyncio.sleep(_RETRY_S)

    async def profile_content(self, profile_id: str) -> bytes:
        """Returns a profile's content; raises as `Store.profile_content`."""
        return await asyncio.to_thread(self._leading.store.profile_content, profile_id)

    def changes_since(self, revision: int) -> tuple[Change, ...] | None:
        """Returns the changes after a revision; None when they are not, or no longer, known."""
        return self._leading.journal.since(revision)

    @contextmanager
    def changes(self) -> Iterator[asyncio.Event]:
        """Yields an event that is set whenever the ledger's durable state changed; the holder clears it."""
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            yield changed
        finally:
            self._waiting.discard(changed)

    def close(self) -> None:
        """Asks the open streams to end."""
        self._closing = True
        _LOG.info("Split the memory %d times in %.3f s of processor time; told %d leases.", *self._splitter.stats)
        self._splitter.close()
        self._splitter.wake_all()
        self._wake()

    def _open_leases(self, batch: list[_Join], epoch: int) -> None:
        """Opens the leases of those that joined; of two streams of one replica the newer gets it."""
        newest = {join.report.replica_id: join for join in batch}
        for replica_id, join in newest.items():
            join.epoch = epoch
            self.ledger.open_lease(join.report, epoch=epoch, now=self._clock(), seq=join.seq)
            if join.left:
                self.close_lease(replica_id, epoch)
            # An older stream of the same replica ends.
            self._splitter.wake(replica_id)

    async def _commit(self, plan: Callable[[], Change], then: Callable[[Change], None] | None) -> Change:
        async with self._writing:
            led = self._leading
            change = plan()
            if change.events:
                await asyncio.to_thread(led.store.write, change)
            led.ledger.apply(change)
            led.journal.append(change)
            if then is not None:
                then(change)
            self._splitter.request()
            self._wake()
            return change

    def _wake(self) -> None:
        for changed in self._waiting:
            changed.set()
