"""What a replica counts: admissions, rounds and squeezes as they happen, slots and queue at intervals."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from reasonserve.errors import ReasonServeError
from reasonserve.kv import Handshake, KvCounters
from reasonserve.replica.admission import Admission
from reasonserve.replica.protocol import EngineLoad
from reasonserve.replica.request import Grant
from reasonserve.telemetry import metrics
from reasonserve.telemetry.metric import LabelCap, Recorder

PUBLISH_EVERY_S = 2.0

logger = logging.getLogger(__name__)


class Figures:
    """Counts what happens to requests.

    Args:
        recorder: Where metrics go.
        max_tenants: Tenants that get a label of their own.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self, recorder: Recorder, *, max_tenants: int = 64, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.recorder = recorder
        self._tenants = LabelCap(max_tenants)
        self._clock = clock

    def label(self, tenant_id: str) -> str:
        """Returns a tenant's label."""
        return self._tenants.of(tenant_id)

    @contextmanager
    def admission(self, tenant_id: str) -> Iterator[Callable[[Grant], None]]:
        """Runs an admission; hand the grant to what it yields. Without one it counts as refused."""
        tenant, began = self.label(tenant_id), self._clock()
        results: list[str] = []
        try:
            yield lambda grant: results.append("shrunk" if grant.kv.budget_tokens < grant.wished_tokens else "admitted")
        finally:
            self.recorder.add(metrics.ADMISSIONS, 1, tenant, results[0] if results else "refused")
            self.recorder.observe(metrics.QUEUE_SECONDS, self._clock() - began, tenant)

    def output(self, tenant_id: str, method: str) -> OutputFigures:
        """Returns what counts the rounds of one output."""
        return OutputFigures(self.recorder, self.label(tenant_id), method)


class OutputFigures:
    """Counts the rounds and squeezes of one output, each once."""

    def __init__(self, recorder: Recorder, tenant: str, method: str) -> None:
        self._recorder = recorder
        self._tenant = tenant
        self._method = method
        self._rounds = 0
        self._squeezes = 0

    def record(self, kv: KvCounters) -> None:
        """Counts what is new in the counters."""
        for event in kv.rounds[self._rounds :]:
            self._recorder.add(metrics.ROUNDS, 1, self._tenant, self._method)
            self._recorder.observe(metrics.ROUND_SECONDS, event.seconds, self._method)
            self._recorder.add(metrics.KEPT_CELLS, event.kept_cells, self._tenant)
            self._recorder.add(metrics.EVICTED_CELLS, event.evicted_cells, self._tenant)
        self._rounds = len(kv.rounds)
        if kv.squeezes > self._squeezes:
            self._recorder.add(metrics.SQUEEZES, kv.squeezes - self._squeezes, self._tenant)
            self._squeezes = kv.squeezes


class Standing(Protocol):
    """The lease as its holder sees it."""

    def standing(self) -> tuple[int, float]:
        """Returns the lease's epoch and its age in seconds."""


class Gauges:
    """Publishes slots, queue and lease at intervals, on a task of its own.

    Args:
        figures: Where they go.
        admission: Whose use is published.
        handshake: What the engine is.
        load: Returns how full the engine is.
        lease: The lease.
    """

    def __init__(
        self,
        figures: Figures,
        *,
        admission: Admission,
        handshake: Handshake,
        load: Callable[[], Awaitable[EngineLoad]],
        lease: Standing,
    ) -> None:
        self._figures = figures
        self._admission = admission
        self._handshake = handshake
        self._load = load
        self._lease = lease
        self._published: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the task, on the running loop."""
        self._task = asyncio.create_task(self._run(), name="gauges")

    async def stop(self) -> None:
        """Ends the task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                self.publish(used_slots=(await self._load()).used_slots)
            except ReasonServeError as error:
                logger.debug("The engine says nothing of its load (%s).", type(error).__name__)
            await asyncio.sleep(PUBLISH_EVERY_S)

    def publish(self, *, used_slots: int) -> None:
        """Publishes once; tenants that share a label are summed."""
        put = self._figures.recorder.set
        put(metrics.CAPACITY_SLOTS, self._handshake.pool_slots)
        put(metrics.SLOT_BYTES, self._handshake.bytes_per_slot)
        put(metrics.USED_SLOTS, used_slots)
        epoch, age_s = self._lease.standing()
        put(metrics.LEASE_EPOCH, epoch)
        put(metrics.LEASE_AGE_SECONDS, age_s)
        sums = self._by_label()
        gone = dict.fromkeys(self._published - set(sums), (0, 0, 0, 0))
        self._published |= set(sums)
        for label, (reserved, active, queued, allowed) in (sums | gone).items():
            put(metrics.RESERVED_SLOTS, reserved, label)
            put(metrics.ACTIVE_REQUESTS, active, label)
            put(metrics.QUEUED_REQUESTS, queued, label)
            put(metrics.ALLOWED_SLOTS, allowed, label)

    def _by_label(self) -> dict[str, tuple[int, int, int, int]]:
        """Returns reserved slots, active requests, queued requests and allowed slots by label."""
        now = time.monotonic()
        uses = {use.tenant_id: use for use in self._admission.use(now=now)}
        sums: dict[str, tuple[int, int, int, int]] = {}
        for tenant_id in sorted({*uses, *self._admission.leases_in_force(now=now)}):
            use, label = uses.get(tenant_id), self._figures.label(tenant_id)
            reserved, active, queued, allowed = sums.get(label, (0, 0, 0, 0))
            if use is not None:
                reserved, active = reserved + use.reserved_slots, active + use.active_requests
                queued += use.queued_requests
            sums[label] = (reserved, active, queued, allowed + self._allowed(tenant_id, now))
        return sums

    def _allowed(self, tenant_id: str, now: float) -> int:
        try:
            return self._admission.allowed_slots(tenant_id, now=now)
        except ReasonServeError:  # the lease no longer names it
            return 0
