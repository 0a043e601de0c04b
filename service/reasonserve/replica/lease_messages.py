"""Messages of the lease stream to the replica's own data and back; pure."""

from __future__ import annotations

from reasonserve.api.v1 import lease_service_pb2 as pb
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.replica.admission import Lease, TenantUse
from reasonserve.replica.sizing import QueueLimits, TenantTerms


def to_lease(response: pb.LeaseResponse, queue: QueueLimits) -> Lease:
    """Returns a response as plain data.

    Args:
        response: The controller's answer.
        queue: How requests may wait here of a tenant that has no limits of its own.
    """
    return Lease(
        epoch=response.epoch,
        ttl_s=response.ttl.ToNanoseconds() / 1e9,
        num_replicas=response.num_replicas,
        tenants={granted.tenant.tenant_id: _to_terms(granted, queue) for granted in response.tenants},
    )


def to_demand(use: TenantUse, leased_slots: int) -> pb.TenantDemand:
    """Returns a tenant's use and demand as a message.

    Args:
        use: What it holds and wants.
        leased_slots: What an earlier stream's lease allows yet.
    """
    return pb.TenantDemand(
        tenant_id=use.tenant_id,
        reserved_slots=use.reserved_slots,
        wanted_slots=use.wanted_slots,
        active_requests=use.active_requests,
        refused_requests=use.refused_requests,
        leased_slots=leased_slots,
        queued_requests=use.queued_requests,
        squeezed_slots=use.squeezed_slots,
    )


def _to_terms(granted: pb.TenantLease, queue: QueueLimits) -> TenantTerms:
    tenant = granted.tenant
    return TenantTerms(
        tenant_id=tenant.tenant_id,
        slots=granted.slots,
        guaranteed_slots=tenant.guaranteed_slots,
        limit_slots=tenant.limit_slots,
        min_tokens=tenant.request_budget.min_tokens,
        default_tokens=tenant.request_budget.default_tokens,
        max_tokens=tenant.request_budget.max_tokens,
        weight=max(1, tenant.weight),
        queue=_to_queue(tenant.queue, queue),
    )


def _to_queue(asked: tenant_pb.QueueLimits, default: QueueLimits) -> QueueLimits:
    """Returns a tenant's own limits where it has them, and this replica's for the others."""
    return QueueLimits(
        requests=asked.max_requests or default.requests,
        wait_s=asked.max_wait.ToNanoseconds() / 1e9 or default.wait_s,
    )
