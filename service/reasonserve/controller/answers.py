"""What a lease stream is told: all of a replica's leases, or what changed since it was last told."""

from __future__ import annotations

from functools import lru_cache

from reasonserve.api.v1 import lease_service_pb2 as pb
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.controller.leases import Replica
from reasonserve.controller.ledger import Ledger
from reasonserve.controller.records import Tenant
from reasonserve.controller.translate import from_tenant


class Answers:
    """The answers on one stream under one epoch.

    Args:
        replica_id: Whose stream it is.
    """

    def __init__(self, replica_id: str) -> None:
        self._replica_id = replica_id
        self._told: dict[str, tuple[int, int]] | None = None  # tenant's revision and slots

    def is_news(self, ledger: Ledger) -> bool:
        """Returns whether the replica's leases differ from what it was told."""
        replica = ledger.leases.replicas[self._replica_id]
        return replica.settled and self._told is not None and self._told != _terms(ledger, replica)

    def next(self, ledger: Ledger, *, now: float) -> pb.LeaseResponse:
        """Returns the lease in force and notes that it is told; its time to live is what is left of it."""
        replica = ledger.leases.replicas[self._replica_id]
        terms, told = _terms(ledger, replica), self._told or {}
        incremental = replica.report.incremental and self._told is not None
        changed = [t for t in sorted(terms) if terms[t] != told.get(t)] if incremental else sorted(terms)
        response = pb.LeaseResponse(
            epoch=replica.epoch,
            seq=ledger.tell_lease(self._replica_id),
            tenants=[_lease(ledger.state.tenants[t], terms[t][1]) for t in changed],
            num_replicas=ledger.leases.num_replicas,
            incremental=incremental,
            report_seq=replica.report.report_seq,
        )
        if replica.report.incremental:
            # Not a difference of sets, which would look at every stored tenant.
            unknown = {t for t in replica.report.tenants if t not in ledger.state.tenants}
            response.absent_tenant_ids.extend(sorted((told.keys() - terms.keys()) | unknown))
        response.ttl.FromNanoseconds(max(0, round((replica.deadline_s - now) * 1e9)))
        self._told = terms
        return response


def _terms(ledger: Ledger, replica: Replica) -> dict[str, tuple[int, int]]:
    """Returns each leased tenant's revision and slots; one deleted since the last split is left out."""
    tenants = ledger.state.tenants
    return {t: (tenants[t].revision, slots) for t, slots in replica.leases.items() if t in tenants}


@lru_cache(maxsize=8192)
def _message(tenant: Tenant) -> tenant_pb.Tenant:
    return from_tenant(tenant)


def _lease(tenant: Tenant, slots: int) -> pb.TenantLease:
    return pb.TenantLease(tenant=_message(tenant), slots=slots)
