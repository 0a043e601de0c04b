"""``top``: what every tenant holds and wants, live."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict
from rich.console import Group
from rich.live import Live
from rich.text import Text

from reasonserve.api.v1 import cluster_service_pb2 as cluster_pb
from reasonserve.api.v1 import tenant_service_pb2 as pb
from reasonserve.cli import client, options
from reasonserve.cli.output import out, table


def top(
    once: Annotated[bool, typer.Option("--once", help="Print one reading and exit.")] = False,
    interval: Annotated[float, typer.Option("--interval", min=0.1, max=60, help="Seconds between readings.")] = 1.0,
    controller: options.Controller = None,
    admin_token: options.AdminToken = None,
    state_dir: options.StateDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what tenants hold and want, until Ctrl-C. The operator token suffices."""
    with client.admin(controller, admin_token, state_dir) as admin:
        if as_json or once:
            while True:
                _print(*_read(admin), as_json=as_json)
                if once:
                    return
                time.sleep(interval)
        with Live(_view(*_read(admin)), console=out, auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                live.update(_view(*_read(admin)), refresh=True)


def _read(admin: client.Admin) -> tuple[cluster_pb.GetClusterStatusResponse, list[pb.TenantUsage]]:
    status = admin.call(admin.services.cluster.GetClusterStatus, cluster_pb.GetClusterStatusRequest())
    usage = admin.call(admin.services.tenants.ListTenantUsage, pb.ListTenantUsageRequest())
    return status, list(usage.usage)


def _print(status: cluster_pb.GetClusterStatusResponse, usage: list[pb.TenantUsage], *, as_json: bool) -> None:
    if not as_json:
        out.print(_view(status, usage))
        return
    tenants = [
        MessageToDict(tenant, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        for tenant in usage
    ]
    reading = {"revision": str(status.revision), "capacity_slots": str(status.capacity_slots), "tenants": tenants}
    # One line each, so that a reader can follow the stream.
    out.print_json(data=reading, indent=None)


def _view(status: cluster_pb.GetClusterStatusResponse, usage: list[pb.TenantUsage]) -> Group:
    """Returns a table of tenants; one that waits below its guarantee is yellow.

    Used, lease, guarantee, limit, wanted and squeezed are slots; squeezed is what running requests gave up.
    """
    used = sum(tenant.reserved_slots for tenant in usage)
    title = f"{len(status.replicas)} replicas, {used} of {status.capacity_slots} slots reserved"
    shown = table(
        "tenant",
        "used",
        "lease",
        "guarantee",
        "limit",
        "wanted",
        "requests",
        "queued",
        "squeezed",
        "refused",
        title=title,
    )
    shown.padding = 0  # ten columns in a terminal of eighty characters
    # Those who hold most first, as in the tool this is named after.
    for tenant in sorted(usage, key=lambda tenant: (-tenant.reserved_slots, tenant.tenant_id)):
        short = tenant.wanted_slots > 0 and tenant.leased_slots < tenant.guaranteed_slots
        numbers = (
            *(tenant.reserved_slots, tenant.leased_slots, tenant.guaranteed_slots, tenant.limit_slots),
            *(tenant.wanted_slots, tenant.active_requests, tenant.queued_requests),
            *(tenant.squeezed_slots, tenant.refused_requests),
        )
        shown.add_row(tenant.tenant_id, *map(str, numbers), style="yellow" if short else None)
    return Group(shown, Text(status.warning, style="yellow")) if status.warning else Group(shown)
