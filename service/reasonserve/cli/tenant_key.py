"""``tenant key``: the keys that a tenant's clients present."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from reasonserve.api.v1 import tenant_service_pb2 as pb
from reasonserve.cli import client, options
from reasonserve.cli.output import out, print_json, table
from reasonserve.controller.translate import MAX_KEY_TTL_S
from reasonserve.errors import InvalidRequestError

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN = re.compile(r"([0-9]{1,9})([smhd])")

app = typer.Typer(no_args_is_help=True, help="Create and revoke a tenant's keys.")

TenantId = Annotated[str, typer.Argument(metavar="TENANT", help="Lower-case letters, digits and hyphens.")]
_TTL_HELP = "How long the key is valid: 90s, 15m, 12h, 30d. Default: until it is revoked."
Ttl = Annotated[str | None, typer.Option("--ttl", metavar="SPAN", help=_TTL_HELP)]
KeyTtl = Annotated[str | None, typer.Option("--key-ttl", metavar="SPAN", help=_TTL_HELP)]


@app.command(epilog="Example: reasonserve tenant key create team-a --ttl 30d")
def create(
    tenant_id: TenantId,
    ttl: Ttl = None,
    controller: options.Controller = None,
    admin_token: options.AdminToken = None,
    state_dir: options.StateDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Create a key. It is printed once and stored hashed."""
    request = key_request(tenant_id, ttl)
    with client.admin(controller, admin_token, state_dir) as admin:
        key = admin.call(admin.services.tenants.CreateTenantKey, request)
    if as_json:
        print_json(key)
    else:
        show_key(key)


@app.command(epilog="Example: reasonserve tenant key revoke team-a KEY_ID")
def revoke(
    tenant_id: TenantId,
    key_id: Annotated[str, typer.Argument(help="The key's id, from `reasonserve tenant show`.")],
    controller: options.Controller = None,
    admin_token: options.AdminToken = None,
    state_dir: options.StateDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Revoke a key."""
    request = pb.RevokeTenantKeyRequest(tenant_id=tenant_id, key_id=key_id)
    with client.admin(controller, admin_token, state_dir) as admin:
        revoked = admin.call(admin.services.tenants.RevokeTenantKey, request)
    if as_json:
        print_json(revoked)
    else:
        out.print(f"Revoked {key_id} of {tenant_id}.")


def key_request(tenant_id: str, ttl: str | None, option: str = "--ttl") -> pb.CreateTenantKeyRequest:
    """Returns what asks for a key that is valid for a time such as ``30d``; None: until it is revoked.

    Raises:
        InvalidRequestError: The time has not that form or is out of range; names the option it came from.
    """
    request = pb.CreateTenantKeyRequest(tenant_id=tenant_id)
    if ttl is not None:
        request.ttl.CopyFrom(Duration(seconds=_seconds(ttl, option)))
    return request


def show_key(key: pb.CreateTenantKeyResponse) -> None:
    """Prints a new key and its end."""
    until = f", valid until {_when(key.expire_time)}" if key.HasField("expire_time") else ""
    out.print(f"Key {key.key_id}{until}, shown only now:\n[bold]{key.key}[/]", soft_wrap=True)


def show_keys(keys: Sequence[pb.TenantKey]) -> None:
    """Prints keys with their ends; whether one has expired is judged by this machine's clock."""
    if not keys:
        out.print("Keys: none")
        return
    shown = table("key", "valid until")
    shown.columns[1].justify = "left"
    now = datetime.now(UTC)
    for key in keys:
        until = "it is revoked"
        if key.HasField("expire_time"):
            expired = key.expire_time.ToDatetime(UTC) <= now
            until = _when(key.expire_time) + (" (expired)" if expired else "")
        shown.add_row(key.key_id, until)
    out.print(shown)


def _seconds(span: str, option: str) -> int:
    match = _SPAN.fullmatch(span)
    seconds = int(match[1]) * _UNITS_S[match[2]] if match else 0
    # Here as well as at the controller, which is asked once it has made the tenant.
    if not 0 < seconds <= MAX_KEY_TTL_S:
        raise InvalidRequestError(
            f"{option}: given {span[:80]!r}; allowed is a whole number and one of s, m, h and d, such as 12h or 30d, "
            f"at most {MAX_KEY_TTL_S // _UNITS_S['d']}d."
        )
    return seconds


def _when(time: Timestamp) -> str:
    return f"{time.ToDatetime(UTC):%Y-%m-%d %H:%M:%S} UTC"
