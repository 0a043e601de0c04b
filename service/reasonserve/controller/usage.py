"""What tenants and replicas hold and want, read off the ledger."""

from __future__ import annotations

from collections.abc import Iterable

from reasonserve.api.v1 import cluster_service_pb2 as cluster_pb
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.controller.leases import Replica
from reasonserve.controller.ledger import Ledger
from reasonserve.controller.records import Tenant, TenantUse
from reasonserve.controller.translate import wall_ns


def cluster_status(ledger: Ledger, *, now: float) -> cluster_pb.GetClusterStatusResponse:
    """Writes the cluster as last reported.

    Args:
        ledger: The state.
        now: The clock that leases run on, in seconds.
    """
    replicas, tenants = ledger.leases.replicas, ledger.state.tenants
    return cluster_pb.GetClusterStatusResponse(
        revision=ledger.state.revision,
        replicas=[_replica_status(replicas[replica_id], now) for replica_id in sorted(replicas)],
        tenants=[_tenant_status(ledger, tenants[tenant_id]) for tenant_id in sorted(tenants)],
        capacity_slots=sum(replica.report.capacity_slots for replica in replicas.values()),
        declared_capacity_slots=ledger.declared_slots,
        warning=ledger.warning,
    )


def tenant_usage(ledger: Ledger, tenant: Tenant) -> tenant_pb.TenantUsage:
    """Writes what a tenant holds and wants, over the cluster and per replica."""
    ordered = [replica for _, replica in sorted(ledger.leases.replicas.items())]
    parts = [_replica_usage(replica, tenant.tenant_id) for replica in ordered]
    return tenant_pb.TenantUsage(
        tenant_id=tenant.tenant_id,
        guaranteed_slots=tenant.guaranteed_slots,
        limit_slots=tenant.limit_slots,
        leased_slots=sum(part.leased_slots for part in parts),
        reserved_slots=sum(part.reserved_slots for part in parts),
        wanted_slots=sum(part.wanted_slots for part in parts),
        active_requests=sum(part.active_requests for part in parts),
        refused_requests=sum(part.refused_requests for part in parts),
        replicas=[part for part in parts if _is_known(part)],
    )


def _replica_usage(replica: Replica, tenant_id: str) -> tenant_pb.ReplicaUsage:
    use = replica.report.tenants.get(tenant_id, TenantUse())
    return tenant_pb.ReplicaUsage(
        replica_id=replica.report.replica_id,
        model=replica.report.model,
        bytes_per_slot=replica.report.bytes_per_slot,
        leased_slots=replica.leases.get(tenant_id, 0),
        reserved_slots=use.reserved_slots,
        wanted_slots=use.wanted_slots,
        active_requests=use.active_requests,
        refused_requests=use.refused_requests,
    )


def _is_known(part: tenant_pb.ReplicaUsage) -> bool:
    """Returns whether a replica has anything to say of the tenant."""
    return any((part.leased_slots, part.reserved_slots, part.wanted_slots, part.refused_requests))


def _replica_status(replica: Replica, now: float) -> cluster_pb.ReplicaStatus:
    report = replica.report
    message = cluster_pb.ReplicaStatus(
        replica_id=report.replica_id,
        model=report.model,
        capacity_slots=report.capacity_slots,
        reserved_slots=sum(use.reserved_slots for use in report.tenants.values()),
        used_slots=report.used_slots,
        active_requests=sum(use.active_requests for use in report.tenants.values()),
        bytes_per_slot=report.bytes_per_slot,
        profile_id=report.profile_id,
    )
    message.lease_expire_time.FromNanoseconds(wall_ns(replica.deadline_s, now))
    return message


def _tenant_status(ledger: Ledger, tenant: Tenant) -> cluster_pb.TenantStatus:
    uses = _uses(ledger.leases.replicas.values(), tenant.tenant_id)
    return cluster_pb.TenantStatus(
        tenant_id=tenant.tenant_id,
        reserved_slots=sum(use.reserved_slots for use in uses),
        leased_slots=sum(replica.leases.get(tenant.tenant_id, 0) for replica in ledger.leases.replicas.values()),
        guaranteed_slots=tenant.guaranteed_slots,
        limit_slots=tenant.limit_slots,
        active_requests=sum(use.active_requests for use in uses),
        refused_requests=sum(use.refused_requests for use in uses),
    )


def _uses(replicas: Iterable[Replica], tenant_id: str) -> list[TenantUse]:
    return [use for replica in replicas if (use := replica.report.tenants.get(tenant_id)) is not None]
