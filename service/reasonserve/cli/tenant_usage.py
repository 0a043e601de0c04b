"""A tenant's use as a table: the cluster first, then each replica."""

from __future__ import annotations

from collections.abc import Iterable

from reasonserve.api.v1 import tenant_service_pb2 as pb
from reasonserve.cli.output import out, slots_and_mib, table


def show_usage(usage: Iterable[pb.TenantUsage]) -> None:
    """Prints what tenants hold and want; slots have their MiB below where all replicas agree on a slot's size."""
    shown = table("tenant", "replica", "used", "lease", "wanted", "requests", "refused")
    for tenant in usage:
        sizes = {replica.bytes_per_slot for replica in tenant.replicas}
        shown.add_row(tenant.tenant_id, "all", *_cells(tenant, sizes.pop() if len(sizes) == 1 else 0))
        for replica in tenant.replicas:
            shown.add_row("", replica.replica_id, *_cells(replica, replica.bytes_per_slot))
    out.print(shown)


def _cells(use: pb.TenantUsage | pb.ReplicaUsage, bytes_per_slot: int) -> list[str]:
    """Returns used, lease, wanted, requests and refused."""
    slots = (use.reserved_slots, use.leased_slots, use.wanted_slots)
    sized = [slots_and_mib(count, bytes_per_slot) for count in slots]
    return [*sized, str(use.active_requests), str(use.refused_requests)]
