"""What tenants and replicas hold and want, read off the ledger."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from reasonserve.api.v1 import cluster_service_pb2 as cluster_pb
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.controller.leases import Replica
from reasonserve.controller.ledger import Ledger
from reasonserve.controller.records import Tenant, TenantUse
from reasonserve.controller.translate import wall_ns

_Item = TypeVar("_Item")
_Message = TypeVar("_Message")
_TURN = 500
# What is summed over replicas, and the most that the field holds.
_SUMS = {
    **dict.fromkeys(("leased_slots", "reserved_slots", "wanted_slots", "squeezed_slots"), 2**63 - 1),
    **dict.fromkeys(("active_requests", "queued_requests"), 2**31 - 1),
    "refused_requests": 2**63 - 1,
}


async def cluster_status(ledger: Ledger, *, now: float) -> cluster_pb.GetClusterStatusResponse:
    """Writes the cluster as last reported.

    Args:
        ledger: The state.
        now: The clock that leases run on, in seconds.
    """
    replicas = sorted(ledger.leases.replicas.items())
    response = cluster_pb.GetClusterStatusResponse(
        revision=ledger.state.revision,
        capacity_slots=sum(replica.report.capacity_slots for _, replica in replicas),
        declared_capacity_slots=ledger.declared_slots,
        warning=ledger.warning,
    )
    parts, tenants = parts_by_tenant(replica for _, replica in replicas), _tenants_by_id(ledger)
    response.replicas.extend([_replica_status(replica, now) for _, replica in replicas])
    response.tenants.extend(await in_turns(lambda tenant: _tenant_status(tenant, parts[tenant.tenant_id]), tenants))
    return response


async def all_usage(ledger: Ledger) -> tenant_pb.ListTenantUsageResponse:
    """Writes what every tenant holds and wants, over the cluster and per replica."""
    parts = parts_by_tenant(replica for _, replica in sorted(ledger.leases.replicas.items()))
    usage = await in_turns(lambda tenant: _tenant_usage(tenant, parts[tenant.tenant_id]), _tenants_by_id(ledger))
    return tenant_pb.ListTenantUsageResponse(usage=usage)


def tenant_usage(ledger: Ledger, tenant: Tenant) -> tenant_pb.TenantUsage:
    """Writes what a tenant holds and wants, over the cluster and per replica."""
    t = tenant.tenant_id
    ordered = [replica for _, replica in sorted(ledger.leases.replicas.items())]
    return _tenant_usage(tenant, [replica for replica in ordered if t in replica.report.tenants or t in replica.leases])


async def in_turns(write: Callable[[_Item], _Message], items: Sequence[_Item]) -> list[_Message]:
    """Writes a message for each item, and lets others have their turn in between."""
    messages: list[_Message] = []
    for start in range(0, len(items), _TURN):
        messages += map(write, items[start : start + _TURN])
        await asyncio.sleep(0)
    return messages


def _tenants_by_id(ledger: Ledger) -> list[Tenant]:
    tenants = ledger.state.tenants
    return [tenants[tenant_id] for tenant_id in sorted(tenants)]


def parts_by_tenant(replicas: Iterable[Replica]) -> defaultdict[str, list[Replica]]:
    """Returns the replicas that have anything to say of each tenant, in order."""
    parts: defaultdict[str, list[Replica]] = defaultdict(list)
    for replica in replicas:
        for tenant_id in replica.report.tenants.keys() | replica.leases.keys():
            parts[tenant_id].append(replica)
    return parts


def _tenant_usage(tenant: Tenant, replicas: Iterable[Replica]) -> tenant_pb.TenantUsage:
    parts = [_replica_usage(replica, tenant.tenant_id) for replica in replicas]
    return tenant_pb.TenantUsage(
        tenant_id=tenant.tenant_id,
        guaranteed_slots=tenant.guaranteed_slots,
        limit_slots=tenant.limit_slots,
        replicas=[part for part in parts if _is_known(part)],
        **{name: min(most, sum(getattr(part, name) for part in parts)) for name, most in _SUMS.items()},
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
        queued_requests=use.queued_requests,
        squeezed_slots=use.squeezed_slots,
    )


def _is_known(part: tenant_pb.ReplicaUsage) -> bool:
    """Returns whether a replica has anything to say of the tenant."""
    return any(getattr(part, name) for name in _SUMS)


def _replica_status(replica: Replica, now: float) -> cluster_pb.ReplicaStatus:
    report = replica.report
    message = cluster_pb.ReplicaStatus(
        replica_id=report.replica_id,
        model=report.model,
        capacity_slots=report.capacity_slots,
        reserved_slots=sum(use.reserved_slots for use in report.tenants.values()),
        used_slots=report.used_slots,
        active_requests=min(_SUMS["active_requests"], sum(use.active_requests for use in report.tenants.values())),
        bytes_per_slot=report.bytes_per_slot,
        profile_id=report.profile_id,
    )
    message.lease_expire_time.FromNanoseconds(wall_ns(replica.deadline_s, now))
    return message


def _tenant_status(tenant: Tenant, replicas: Iterable[Replica]) -> cluster_pb.TenantStatus:
    usage = _tenant_usage(tenant, replicas)
    return cluster_pb.TenantStatus(
        tenant_id=tenant.tenant_id,
        reserved_slots=usage.reserved_slots,
        leased_slots=usage.leased_slots,
        guaranteed_slots=tenant.guaranteed_slots,
        limit_slots=tenant.limit_slots,
        active_requests=usage.active_requests,
        refused_requests=usage.refused_requests,
    )
