"""Splits the memory when it is due, and wakes the streams of those replicas that get other leases."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from reasonserve.controller.ledger import Ledger
from reasonserve.controller.pace import Pace

_LOG = logging.getLogger(__name__)
# To write an answer takes about this long; telling is paid from the same budget as splitting.
_TELL_S = 0.0005
_WOKEN_AT_ONCE = 16
_WAKE_GAP_S = 0.01


class SplitStats(NamedTuple):
    """What was spent since the start.

    Attributes:
        splits: How often the memory was split.
        seconds: Processor time that took.
        told: Replicas that were woken to be told of it.
    """

    splits: int = 0
    seconds: float = 0.0
    told: int = 0


class Splitter:
    """Belongs to one event loop.

    Args:
        ledger: Returns the ledger.
    """

    def __init__(self, ledger: Callable[[], Ledger]) -> None:
        self._ledger = ledger
        self._pace = Pace(time.monotonic())
        self._timer: asyncio.TimerHandle | None = None
        self._streams: dict[str, set[asyncio.Event]] = {}
        self._settled = asyncio.Event()
        self._to_wake: dict[str, None] = {}
        self._waking = False
        self.stats = SplitStats()

    @contextmanager
    def stream(self, replica_id: str) -> Iterator[asyncio.Event]:
        """Yields an event that is set whenever the replica's stream has something to look at."""
        event = asyncio.Event()
        self._streams.setdefault(replica_id, set()).add(event)
        try:
            yield event
        finally:
            self._streams[replica_id].discard(event)
            if not self._streams[replica_id]:
                del self._streams[replica_id]

    def wake(self, replica_id: str) -> None:
        """Has a replica's streams look."""
        for event in self._streams.get(replica_id, ()):
            event.set()

    def wake_all(self) -> None:
        """Has every stream look."""
        for replica_id in self._streams:
            self.wake(replica_id)

    def request(self) -> None:
        """Has the memory split, now where the pace allows it; does nothing where nothing changed."""
        if self._timer is not None or not self._ledger().leases.dirty:
            return
        wait_s = self._pace.wait_s(time.monotonic())
        if wait_s <= 0:
            self._split()
        else:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._on_time)

    async def settled(self) -> None:
        """Returns once nothing is to be split."""
        self.request()
        while self._ledger().leases.dirty:
            self._settled.clear()
            await self._settled.wait()

    def close(self) -> None:
        """Splits no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _on_time(self) -> None:
        self._timer = None
        if self._ledger().leases.dirty:
            self._split()

    def _split(self) -> None:
        began = time.thread_time()
        urgent = self._ledger().settle()
        seconds = time.thread_time() - began
        self._pace.spend(seconds + len(urgent) * _TELL_S, time.monotonic())
        self.stats = SplitStats(self.stats.splits + 1, self.stats.seconds + seconds, self.stats.told + len(urgent))
        self._settled.set()
        self._to_wake.update(dict.fromkeys(sorted(urgent)))
        if not self._waking:
            self._wake_some()

    def _wake_some(self) -> None:
        """Wakes a few streams and comes back for the rest, so that renewals get their turn in between."""
        for replica_id in list(self._to_wake)[:_WOKEN_AT_ONCE]:
            del self._to_wake[replica_id]
            self.wake(replica_id)
        self._waking = bool(self._to_wake)
        if self._waking:
            asyncio.get_running_loop().call_later(_WAKE_GAP_S, self._wake_some)
