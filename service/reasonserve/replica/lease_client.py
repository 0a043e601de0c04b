"""Holds the replica's lease open: reports its use, puts what the controller answers in force.

One task for the life of the replica. It renews about every third of the time to live, a little sooner by chance so
that a thousand replicas do not renew at once, and reports a change of use within ``MIN_REPORT_GAP_S``, at once where
a tenant below its guarantee waits; when the stream breaks it opens a new one with growing, jittered pauses.
Meanwhile admission goes on under the lease it has.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import grpc
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from reasonserve.api.v1 import lease_service_pb2 as pb
from reasonserve.controller_client import admin_metadata, open_channel, stubs
from reasonserve.errors import UnavailableError
from reasonserve.kv import Handshake
from reasonserve.replica.admission import Admission, TenantUse
from reasonserve.replica.desk import Desk
from reasonserve.replica.lease_messages import to_demand, to_lease
from reasonserve.replica.protocol import EngineLoad
from reasonserve.replica.sizing import QueueLimits

MIN_REPORT_GAP_S = 0.1
"""A burst of admissions and releases becomes one report."""
LOAD_POLL_S = 0.5
"""How often the engine is asked how full it is; the controller hears of it when that changed."""
RENEWAL_JITTER = 0.2
"""A renewal comes by up to this part sooner than it is due."""
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0

Call = grpc.aio.StreamStreamCall[pb.LeaseRequest, pb.LeaseResponse]

logger = logging.getLogger(__name__)


class _StreamEndedError(Exception):
    """The stream ended, without an error or before it was read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplicaIdentity:
    """Who reports.

    Attributes:
        replica_id: Identity of the replica process.
        model: Model it serves.
        handshake: What its engine said at start-up.
    """

    replica_id: str
    model: str
    handshake: Handshake


class LeaseClient:
    """Keeps ``admission`` under the controller's lease.

    Args:
        endpoint: ``host:port`` of the controller.
        token: The admin token.
        identity: Who reports.
        admission: Where use is read.
        desk: Where leases are put in force.
        load: Returns how full the engine is.
        queue: How requests may wait here of a tenant that has no limits of its own.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        token: str,
        identity: ReplicaIdentity,
        admission: Admission,
        desk: Desk,
        load: Callable[[], Awaitable[EngineLoad]],
        queue: QueueLimits,
    ) -> None:
        self._queue = queue
        self._endpoint = endpoint
        self._metadata = admin_metadata(token)
        self._identity = identity
        self._admission = admission
        self._desk = desk
        self._load = load
        self._changed = asyncio.Event()
        self._renewal_s = 1.0  # until the first lease says how long it lasts
        self._reported_at = 0.0
        self._reported_used_slots = 0
        self._applied_seq = 0
        self._sent: dict[int, float] = {}  # when which report of this stream was sent, from the last answered one on
        self._answered: tuple[int, float] = (0, 0.0)  # the last report answered, and how long its lease lasts
        self._epoch = 0
        self._granted: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the task, on the running loop."""
        self._task = asyncio.create_task(self._run(), name="lease")
        self._task.add_done_callback(_log_end)

    def use_changed(self) -> None:
        """Has the controller told soon that use or demand changed."""
        self._changed.set()

    def check_health(self) -> None:
        """Returns if the task is alive; a broken stream is not ill health, the task mends it.

        Raises:
            UnavailableError: It was never started or has ended.
        """
        if self._task is None or self._task.done():
            raise UnavailableError("The replica no longer renews its lease; it has to be restarted.")

    def standing(self) -> tuple[int, float]:
        """Returns the lease's epoch and the seconds since the report that it answers; zeros before the first."""
        return self._epoch, time.monotonic() - self._reported_at if self._epoch else 0.0

    async def stop(self) -> None:
        """Ends the task and the stream; the controller holds the slots back until the lease lapses."""
        while self._task is not None and not self._task.done():
            # More than once: a cancellation is lost where the stream breaks at the same moment.
            self._task.cancel()
            await asyncio.wait([self._task], timeout=MIN_REPORT_GAP_S)

    async def _run(self) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((grpc.RpcError, _StreamEndedError, UnavailableError)),
            wait=wait_exponential_jitter(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S, jitter=FIRST_PAUSE_S),
            before_sleep=_log_failure,
        )
        async with open_channel(self._endpoint) as channel:
            while True:
                stream: tuple[Call, AsyncIterator[pb.LeaseResponse]] = await retrying(self._open, channel)
                call, responses = stream
                try:
                    await self._hold(call, responses)
                except (grpc.RpcError, _StreamEndedError, UnavailableError) as error:
                    logger.warning("The lease stream broke (%s) and is opened anew.", _reason(error))
                finally:
                    call.cancel()

    async def _open(self, channel: grpc.aio.Channel) -> tuple[Call, AsyncIterator[pb.LeaseResponse]]:
        """Opens a stream and sees it through its first lease, so that pauses only shorten once it works."""
        call = stubs(channel).leases.Lease(metadata=self._metadata)
        self._applied_seq = 0
        self._sent, self._answered = {}, (0, 0.0)
        try:
            await self._report(call)
            responses = aiter(call)
            self._apply(await _next(responses))
        except BaseException:
            call.cancel()
            raise
        return call, responses

    async def _hold(self, call: Call, responses: AsyncIterator[pb.LeaseResponse]) -> None:
        """Reports and listens until either fails."""
        tasks = (asyncio.create_task(self._report_on_change(call)), asyncio.create_task(self._listen(responses)))
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _report_on_change(self, call: Call) -> None:
        while True:
            if not self._admission.is_urgent:
                await asyncio.sleep(MIN_REPORT_GAP_S)
            renew_at = self._reported_at + self._renewal_s * random.uniform(1 - RENEWAL_JITTER, 1)
            while not (self._changed.is_set() or time.monotonic() >= renew_at or await self._load_changed()):
                # Not `wait_for`: on Python 3.11 it loses a cancellation that comes together with the event.
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(LOAD_POLL_S, self._renewal_s)):
                        await self._changed.wait()
            await self._report(call)

    async def _load_changed(self) -> bool:
        """The engine frees an aborted request's slots a step after its reservation is released."""
        return (await self._load()).used_slots != self._reported_used_slots

    async def _listen(self, responses: AsyncIterator[pb.LeaseResponse]) -> None:
        while True:
            self._apply(await _next(responses))

    async def _report(self, call: Call) -> None:
        load = await self._load()
        self._changed.clear()
        handshake = self._identity.handshake
        reported_at = time.monotonic()
        report = pb.LeaseRequest(
            replica_id=self._identity.replica_id,
            model=self._identity.model,
            capacity_slots=handshake.pool_slots,
            used_slots=load.used_slots,
            bytes_per_slot=handshake.bytes_per_slot,
            profile_id=handshake.profile_id,
            tenants=self._demands(reported_at),
            applied_seq=self._applied_seq,
            report_seq=max(self._sent, default=0) + 1,
        )
        self._sent[report.report_seq] = reported_at
        try:
            await call.write(report)
        except asyncio.InvalidStateError:  # how grpc says that the call ended before; its status is the listener's
            raise _StreamEndedError from None
        self._reported_at = reported_at
        self._reported_used_slots = load.used_slots

    def _demands(self, now: float) -> list[pb.TenantDemand]:
        """Returns what is reported of each tenant; in a stream's first report also what an earlier lease allows yet."""
        uses = {use.tenant_id: use for use in self._admission.use(now=now)}
        claims = {} if self._applied_seq else self._admission.leases_in_force(now=now)
        idle = {tenant_id: TenantUse(tenant_id=tenant_id) for tenant_id in claims if tenant_id not in uses}
        return [to_demand(use, claims.get(tenant_id, 0)) for tenant_id, use in (uses | idle).items()]

    def _apply(self, response: pb.LeaseResponse) -> None:
        """Puts an answer in force; one that took slots away is confirmed at once, so that another may have them."""
        lease = to_lease(response, self._queue)
        granted_at, ttl_s = self._term(response.report_seq, lease.ttl_s)
        self._renewal_s = ttl_s / 3
        self._desk.apply_lease(replace(lease, ttl_s=ttl_s), granted_at=granted_at)
        self._applied_seq, self._epoch = response.seq, response.epoch
        granted = {tenant_id: terms.slots for tenant_id, terms in lease.tenants.items()}
        if any(granted.get(tenant_id, 0) < slots for tenant_id, slots in self._granted.items()):
            self._changed.set()
        self._granted = granted

    def _term(self, report_seq: int, ttl_s: float) -> tuple[float, float]:
        """Returns when the report that is answered was sent, and how long the lease lasts from then.

        An answer that was long on its way extends nothing, and one that follows no new report shortens nothing.
        """
        if report_seq not in self._sent:
            return self._reported_at, ttl_s  # a controller that does not say what it answers
        last, last_ttl_s = self._answered
        ttl_s = max(ttl_s, last_ttl_s) if report_seq == last else ttl_s
        self._answered = (report_seq, ttl_s)
        self._sent = {seq: sent_at for seq, sent_at in self._sent.items() if seq >= report_seq}
        return self._sent[report_seq], ttl_s


async def _next(responses: AsyncIterator[pb.LeaseResponse]) -> pb.LeaseResponse:
    try:
        return await anext(responses)
    except StopAsyncIteration:
        raise _StreamEndedError from None


def _log_failure(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    logger.warning("The controller gave no lease (%s); trying again.", _reason(error))


def _log_end(task: asyncio.Task[None]) -> None:
    """Says why the task ended; Ray Serve replaces the replica then, and would not say."""
    if not task.cancelled() and (error := task.exception()):
        logger.error("The lease is renewed no longer, and this replica will be replaced.", exc_info=error)


def _reason(error: BaseException | None) -> str:
    return error.code().name if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__
