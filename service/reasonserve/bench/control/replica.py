"""A replica without an engine, for fault scenarios: ``python -m reasonserve.bench.control.replica JOB``.

Admission, queue and lease client are the real ones, and requests come and go without end; only nothing is
generated. What happens is written to standard output, a JSON object a line, with times on the system's
monotonic clock. On standard input, ``jump SECONDS`` moves this process's wall clock, and ``crowd TENANT N``
makes it N more clients of a tenant than at the start.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from collections.abc import Mapping
from typing import Any

from reasonserve.errors import ReasonServeError
from reasonserve.kv import Handshake
from reasonserve.replica.admission import Admission, Entry, Lease
from reasonserve.replica.desk import Desk
from reasonserve.replica.lease_client import LeaseClient, ReplicaIdentity
from reasonserve.replica.protocol import EngineLoad
from reasonserve.replica.sizing import KvAsk, QueueLimits

WORKERS = 3
PROMPT_TOKENS, BUDGET_TOKENS, BUFFER_TOKENS, NEW_TOKENS = 16, 64, 16, 512
_HOLD_S = (0.05, 0.15)
_PATIENCE_S = 10.0


def _say(kind: str, **values: Any) -> None:
    sys.stdout.write(json.dumps({"kind": kind, "at": time.monotonic(), **values}) + "\n")
    sys.stdout.flush()


class _NoEngine:
    """Holds nothing and takes any budget."""

    async def set_budgets(self, budgets: Mapping[str, int]) -> bool:
        return True

    async def load(self) -> EngineLoad:
        return EngineLoad(used_slots=0)


class _SaidDesk(Desk):
    """A desk that says what each lease allows, until when, and what of it was admitted while no lease was in force."""

    def __init__(self, admission: Admission, engine: _NoEngine) -> None:
        super().__init__(admission=admission, engine=engine)
        self._said = admission
        self._until = float("inf")
        self._carried: dict[str, int] = {}

    def apply_lease(self, lease: Lease, *, granted_at: float) -> None:
        now, until = time.monotonic(), granted_at + lease.ttl_s
        reserved = {use.tenant_id: use.reserved_slots for use in self._said.use(now=now)}
        before = reserved if now >= self._until else self._carried
        self._carried = {t: min(slots, reserved.get(t, 0)) for t, slots in before.items()}
        super().apply_lease(lease, granted_at=granted_at)
        self._until = until
        allowed = self._said.leases_in_force(now=now)
        _say("lease", allowed=allowed, carried=self._carried, until=until, epoch=lease.epoch)


async def _work(desk: Desk, tenant_id: str, numbers: itertools.count[int]) -> None:
    """Sends one request after the other, and says how each ended."""
    while True:
        request_id = f"{tenant_id}-{next(numbers)}"
        entry = Entry(
            request_id=request_id,
            tenant_id=tenant_id,
            ask=KvAsk(budget_tokens=BUDGET_TOKENS),
            prompt_ids=tuple(random.randrange(1, 1000) for _ in range(PROMPT_TOKENS)),
            max_new_tokens=NEW_TOKENS,
            patience_s=_PATIENCE_S,
        )
        began = time.monotonic()
        try:
            await desk.enter(entry)
            waited_s = time.monotonic() - began
            await asyncio.sleep(random.uniform(*_HOLD_S))
            _say("done", waited_s=waited_s)
        except ReasonServeError as error:
            _say("lost", error=type(error).__name__)
            await asyncio.sleep(0.1)
        finally:
            desk.leave(request_id)


async def _obey(desk: Desk, numbers: itertools.count[int], clients: asyncio.TaskGroup) -> None:
    """Does what standard input says."""
    true_time, true_time_ns = time.time, time.time_ns
    crowd: list[asyncio.Task[None]] = []
    while line := await asyncio.to_thread(sys.stdin.readline):
        match line.split():
            case ["jump", seconds]:
                offset = float(seconds)
                # Only this process may notice: other work on the machine goes by the system's clock.
                time.time = lambda offset=offset: true_time() + offset  # type: ignore[misc]
                time.time_ns = lambda offset=offset: true_time_ns() + int(offset * 1e9)  # type: ignore[misc]
            case ["crowd", tenant_id, count]:
                while crowd:
                    crowd.pop().cancel()
                crowd += [clients.create_task(_work(desk, tenant_id, numbers)) for _ in range(int(count))]


async def run(endpoint: str, token: str, replica_id: str, pool_slots: int, tenant_ids: list[str]) -> None:
    """Serves until the process ends."""
    engine, admission = _NoEngine(), Admission(pool_slots=pool_slots, buffer_tokens=BUFFER_TOKENS, now=time.monotonic())
    desk = _SaidDesk(admission, engine)
    handshake = Handshake(
        plugin_version="", seams=(), num_layers=1, num_kv_heads=1, head_dim=1, pool_slots=pool_slots,
        bytes_per_slot=1 << 17, dtype="", model_fingerprint="",
    )  # fmt: skip
    client = LeaseClient(
        endpoint=endpoint,
        token=token,
        identity=ReplicaIdentity(replica_id=replica_id, model="none", handshake=handshake),
        admission=admission,
        desk=desk,
        load=engine.load,
        queue=QueueLimits(),
    )
    desk.on_change(client.use_changed)
    desk.start()
    client.start()
    while not admission.leases_in_force(now=time.monotonic()):
        client.check_health()
        await asyncio.sleep(0.01)
    numbers = itertools.count()
    async with asyncio.TaskGroup() as clients:
        clients.create_task(_obey(desk, numbers, clients))
        for tenant_id in tenant_ids * WORKERS:
            clients.create_task(_work(desk, tenant_id, numbers))


if __name__ == "__main__":
    asyncio.run(run(**json.loads(sys.argv[1])))
