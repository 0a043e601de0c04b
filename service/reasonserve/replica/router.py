"""Ray Serve's request router for replicas: the shell around ``routing``; runs in the gateway's process."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from ray.serve._private.replica_result import ReplicaResult
from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from reasonserve.replica.messages import GenerateCall
from reasonserve.replica.routing import (
    Choice,
    FadingLoads,
    SeenPrefixes,
    SentSlots,
    expected_cost,
    expected_slots,
    prompt_blocks,
    rank,
)

SUSPECT_S = 5.0
"""A replica that failed a request is passed over for so long; by then Ray Serve has looked at its health."""
_REMEMBERED_CALLS = 4096


class PrefixAffinityRouter(RequestRouter):  # type: ignore[misc]  # Ray is untyped here
    """Sends a request where its prompt was seen and its tenant's lease has room, within a bound on imbalance."""

    def initialize_state(self, imbalance: float) -> None:
        """Called by Ray Serve with ``request_router_kwargs``; see ``routing.rank``."""
        self._imbalance = imbalance
        self._seen = SeenPrefixes()
        self._loads = FadingLoads()
        self._sent = SentSlots()
        self._suspect_until: dict[str, float] = {}
        self._tried: OrderedDict[str, str] = OrderedDict()
        self._known: list[str] = []

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Returns the candidates, best first, each a rank of its own."""
        now = time.monotonic()
        call = _call_of(pending_request)
        by_id = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        if call is not None and call.attempt and (failed := self._tried.get(call.request_id)):
            self._suspect_until[failed] = now + SUSPECT_S
        matched = self._seen.matched(prompt_blocks(call)) if call else {}
        home = next(iter(matched), None)
        choices = [
            Choice(
                replica_id=replica_id,
                load=self._loads.of(replica_id, now=now),
                free_slots=self._free_slots(replica, call),
                matched_blocks=matched.get(replica_id, 0),
                is_home=replica_id == home,
                is_suspect=now < self._suspect_until.get(replica_id, 0.0) or bool(replica.routing_stats.get("is_dead")),
            )
            for replica_id, replica in by_id.items()
        ]
        cost, slots = (expected_cost(call), expected_slots(call)) if call else (1.0, 0)
        return [[by_id[r]] for r in rank(choices, cost=cost, slots=slots, imbalance=self._imbalance)]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: ReplicaResult) -> None:
        """Notes where a request went."""
        call, chosen = _call_of(pending_request), replica_id.unique_id
        if call is None:
            return
        self._seen.add(prompt_blocks(call), chosen)
        self._loads.add(chosen, expected_cost(call), now=time.monotonic())
        self._sent.add(chosen, pending_request.metadata.internal_request_id, call.tenant_id, expected_slots(call))
        self._tried[call.request_id] = chosen
        while len(self._tried) > _REMEMBERED_CALLS:
            self._tried.popitem(last=False)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Notes that a request ended."""
        self._sent.ended(replica_id.unique_id, internal_request_id)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Called by Ray Serve when replicas come, go or report."""
        super().update_replicas(replicas)
        ids = sorted(replica.replica_id.unique_id for replica in replicas)
        if ids == self._known:
            return
        self._known = ids
        self._seen.keep(ids)
        self._loads.keep(ids, now=time.monotonic())
        self._suspect_until = {r: until for r, until in self._suspect_until.items() if r in ids}

    def _free_slots(self, replica: RunningReplica, call: GenerateCall | None) -> int | None:
        """Returns what the tenant's lease has free at a replica, less what was sent there since it said so."""
        if call is None:
            return None
        stats, replica_id = replica.routing_stats, replica.replica_id.unique_id
        self._sent.reported(replica_id, stats.get("report", 0))
        free = stats.get("free_slots", {}).get(call.tenant_id)
        return None if free is None else free - self._sent.of(replica_id, call.tenant_id)


def _call_of(pending: PendingRequest | None) -> GenerateCall | None:
    """Returns the call that a request carries, or None for one of another kind."""
    args: list[Any] = list(pending.args) if pending is not None else []
    return args[0] if args and isinstance(args[0], GenerateCall) else None
