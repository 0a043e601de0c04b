"""``tenant``: who may hold how much KV memory."""

from __future__ import annotations

from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from rich.text import Text

from reasonserve.api.v1 import tenant_service_pb2 as pb
from reasonserve.cli import client, options, tenant_key
from reasonserve.cli.output import err, out, print_json, table
from reasonserve.cli.tenant_key import KeyTtl, TenantId, key_request, show_key, show_keys
from reasonserve.cli.tenant_queue import QueueRequests, QueueWait, assign_queue, queue_line
from reasonserve.cli.tenant_usage import show_usage
from reasonserve.errors import InvalidRequestError

DEFAULT_LIMIT_SLOTS = 4096
DEFAULT_BUDGET = (64, 256, 2048)

app = typer.Typer(no_args_is_help=True, help="Create tenants, their keys and their KV memory budgets.")
app.add_typer(tenant_key.app, name="key")

Weight = Annotated[
    int | None, typer.Option("--weight", min=1, max=100_000, help="Share of contended memory relative to others.")
]
Guaranteed = Annotated[int | None, typer.Option("--guaranteed-slots", help="Token slots that are always its own.")]
Limit = Annotated[int | None, typer.Option("--limit-slots", help="Most token slots that it may hold.")]
BudgetMin = Annotated[int | None, typer.Option("--budget-min", help="Smallest KV budget of a request, in tokens.")]
BudgetDefault = Annotated[int | None, typer.Option("--budget-default", help="KV budget of a request that names none.")]
Overcommit = Annotated[
    bool, typer.Option("--allow-overcommit", help="Accept guarantees that exceed the cluster's capacity together.")
]
BudgetMax = Annotated[int | None, typer.Option("--budget-max", help="Largest KV budget of a request, in tokens.")]


@app.command(epilog="Example: reasonserve tenant create team-a --limit-slots 4096 --guaranteed-slots 1024")
def create(
    tenant_id: TenantId,
    display_name: Annotated[str, typer.Option("--display-name", help="Name for people.")] = "",
    weight: Weight = 1,
    guaranteed_slots: Guaranteed = 0,
    limit_slots: Limit = DEFAULT_LIMIT_SLOTS,
    budget_min: BudgetMin = DEFAULT_BUDGET[0],
    budget_default: BudgetDefault = DEFAULT_BUDGET[1],
    budget_max: BudgetMax = DEFAULT_BUDGET[2],
    queue_requests: QueueRequests = 0,
    queue_wait: QueueWait = 0.0,
    key_ttl: KeyTtl = None,
    allow_overcommit: Overcommit = False,
    controller: options.Controller = None,
    admin_token: options.AdminToken = None,
    state_dir: options.StateDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Create a tenant with a first key. The key is printed once and stored hashed."""
    tenant = pb.Tenant(tenant_id=tenant_id, display_name=display_name)
    _assign(tenant, {"weight": weight, "guaranteed_slots": guaranteed_slots, "limit_slots": limit_slots})
    budget = {"min_tokens": budget_min, "default_tokens": budget_default, "max_tokens": budget_max}
    _assign(tenant.request_budget, budget)
    assign_queue(tenant, queue_requests, queue_wait)
    request = pb.CreateTenantRequest(tenant=tenant, allow_overcommit=allow_overcommit)
    first_key = key_request(tenant_id, key_ttl, "--key-ttl")
    with client.admin(controller, admin_token, state_dir) as admin:
        created = admin.call(admin.services.tenants.CreateTenant, request)
        key = admin.call(admin.services.tenants.CreateTenantKey, first_key)
    _warn(created.warning)
    if as_json:
        print_json(created, key)
        return
    _show([created.tenant])
    out.print(queue_line(created.tenant))
    show_key(key)


@app.command("list", epilog="Example: reasonserve tenant list --json")
def list_tenants(
    controller: options.Controller = None,
    admin_token: options.AdminToken = None,
    state_dir: options.StateDir = None,
    as_json: options.AsJson = False,
) -> None:
    """List all tenants."""
    with client.admin(controller, admin_token, state_dir) as admin:
        listed = admin.call(admin.services.tenants.ListTenants, pb.ListTenantsRequest())
    if as_json:
        print_json(listed)
    else:
        _show(listed.tenants)


@app.command(epilog="Example: reasonserve tenant show team-a")
def show(
    tenant_id: TenantId,
    controller: options.Controller = None,
    admin_token: options.AdminToken = None,
    state_dir: options.StateDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show a tenant, and the ids of its keys with their ends."""
    with client.admin(controller, admin_token, state_dir) as admin:
        got = admin.call(admin.services.tenants.GetTenant, pb.GetTenantRequest(tenant_id=tenant_id))
    if as_json:
        print_json(got)
        return
    _show([got.tenant])
    out.print(queue_line(got.tenant))
    show_keys(got.tenant.keys)


@app.command("set-budget", epilog="Example: reasonserve tenant set-budget team-a --limit-slots 8192 --budget-max 1024")
def set_budget(
    tenant_id: TenantId,
    weight: Weight = None,
    guaranteed_slots: Guaranteed = None,
    limit_slots: Limit = None,
    budget_min: BudgetMin = None,
    budget_default: BudgetDefault = None,
    budget_max: BudgetMax = None,
    queue_requests: QueueRequests = None,
    queue_wait: QueueWait = None,
    allow_overcommit: Overcommit = False,
    controller: options.Controller = None,
    admin_token: options.AdminToken = None,
    state_dir: options.StateDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Change what a tenant may hold, and how its requests may wait. What is not named stays as it is."""
    scalars = {"weight": weight, "guaranteed_slots": guaranteed_slots, "limit_slots": limit_slots}
    budget = {"min_tokens": budget_min, "default_tokens": budget_default, "max_tokens": budget_max}
    with client.admin(controller, admin_token, state_dir) as admin:
        tenant = admin.call(admin.services.tenants.GetTenant, pb.GetTenantRequest(tenant_id=tenant_id)).tenant
        paths = [*_assign(tenant, scalars), *(["request_budget"] if _assign(tenant.request_budget, budget) else [])]
        paths += assign_queue(tenant, queue_requests, queue_wait)
        if not paths:
            raise InvalidRequestError("Nothing to change was named; see `reasonserve tenant set-budget --help`.")
        mask = FieldMask(paths=paths)
        request = pb.UpdateTenantRequest(tenant=tenant, update_mask=mask, allow_overcommit=allow_overcommit)
        updated = admin.call(admin.services.tenants.UpdateTenant, request)
    _warn(updated.warning)
    if as_json:
        print_json(updated)
        return
    _show([updated.tenant])
    out.print(queue_line(updated.tenant))


@app.command(epilog="Example: reasonserve tenant usage team-a")
def usage(
    tenant_id: Annotated[str, typer.Argument(metavar="[TENANT]", help="Default: all tenants.")] = "",
    controller: options.Controller = None,
    admin_token: options.AdminToken = None,
    state_dir: options.StateDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what tenants hold and want at each replica. A tenant's own key suffices for that tenant."""
    with client.admin(controller, admin_token, state_dir) as admin:
        request = pb.ListTenantUsageRequest(tenant_id=tenant_id)
        listed = admin.call(admin.services.tenants.ListTenantUsage, request)
    if as_json:
        print_json(listed)
    else:
        show_usage(listed.usage)


@app.command(epilog="Example: reasonserve tenant delete team-a")
def delete(
    tenant_id: TenantId,
    controller: options.Controller = None,
    admin_token: options.AdminToken = None,
    state_dir: options.StateDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete a tenant and revoke its keys. Its running requests finish."""
    with client.admin(controller, admin_token, state_dir) as admin:
        deleted = admin.call(admin.services.tenants.DeleteTenant, pb.DeleteTenantRequest(tenant_id=tenant_id))
    if as_json:
        print_json(deleted)
    else:
        out.print(f"Deleted {tenant_id}.")


def _assign(message: pb.Tenant | pb.RequestBudget, values: dict[str, int | None]) -> list[str]:
    """Sets the fields that have a value; returns their names.

    Raises:
        InvalidRequestError: A value is larger than a message can carry.
    """
    given = {name: value for name, value in values.items() if value is not None}
    for name, value in given.items():
        try:
            setattr(message, name, value)
        except ValueError as error:
            raise InvalidRequestError(
                f"{name}: given {value}, which is out of range; name a smaller number."
            ) from error
    return list(given)


def _show(tenants: list[pb.Tenant]) -> None:
    if not tenants:
        out.print("No tenants yet: `reasonserve tenant create NAME` makes one.")
        return
    shown = table("tenant", "weight", "guaranteed", "limit", "min budget", "default", "max")
    for tenant in tenants:
        budget = tenant.request_budget
        numbers = (
            *(tenant.weight, tenant.guaranteed_slots, tenant.limit_slots),
            *(budget.min_tokens, budget.default_tokens, budget.max_tokens),
        )
        shown.add_row(tenant.tenant_id, *map(str, numbers))
    out.print(shown)


def _warn(warning: str) -> None:
    if warning:
        err.print(Text(f"Warning: {warning}", style="yellow"), soft_wrap=True)
