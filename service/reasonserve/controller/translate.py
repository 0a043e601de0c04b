"""Messages of the wire to records of the ledger and back, and exceptions to gRPC status."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from reasonserve import status
from reasonserve.api.v1 import lease_service_pb2 as lease_pb
from reasonserve.api.v1 import profile_service_pb2 as profile_pb
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.controller.records import Key, Profile, QueueLimits, Report, RequestBudget, Tenant, TenantUse
from reasonserve.controller.tenants import is_control
from reasonserve.errors import InvalidRequestError

_LOG = logging.getLogger(__name__)
_MAX_REPLICA_ID = 128
_MAX_NAME = 4096
MAX_SLOTS = 2**31 - 1
"""Of a replica; the split counts on it, and no pool comes near it."""
MAX_KEY_TTL_S = 3650 * 86_400
_MAX_COUNT = 2**53
_USE_FIELDS = (
    ("reserved_slots", MAX_SLOTS),
    ("wanted_slots", _MAX_COUNT),
    ("active_requests", _MAX_COUNT),
    ("refused_requests", _MAX_COUNT),
    ("leased_slots", MAX_SLOTS),
    ("queued_requests", _MAX_COUNT),
    ("squeezed_slots", MAX_SLOTS),
)

_Servicer = TypeVar("_Servicer")
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Context = grpc.aio.ServicerContext[Any, Any]


async def abort(context: _Context, error: Exception) -> NoReturn:
    """Ends a call with the error's status; logs what the caller is not told."""
    code = status.grpc_code(error)
    if code is grpc.StatusCode.INTERNAL:
        _LOG.error("A call failed.", exc_info=error)
    message = status.to_rpc_status(error).message
    await context.abort(code, message, trailing_metadata=status.trailing_metadata(error))


def answered(
    method: Callable[[_Servicer, _Request], Awaitable[_Response]],
) -> Callable[[_Servicer, _Request, _Context], Awaitable[_Response]]:
    """Makes a gRPC method of one that knows no context: what it raises becomes the call's status."""

    @functools.wraps(method)
    async def call(self: _Servicer, request: _Request, context: _Context) -> _Response:
        try:
            return await method(self, request)
        except Exception as error:
            await abort(context, error)

    return call


def to_tenant(message: tenant_pb.Tenant) -> Tenant:
    """Reads a tenant; the ledger checks its fields.

    Raises:
        InvalidRequestError: The longest wait is no valid duration.
    """
    budget = message.request_budget
    return Tenant(
        tenant_id=message.tenant_id,
        display_name=message.display_name,
        weight=message.weight or 1,
        guaranteed_slots=message.guaranteed_slots,
        limit_slots=message.limit_slots,
        request_budget=RequestBudget(
            min_tokens=budget.min_tokens, default_tokens=budget.default_tokens, max_tokens=budget.max_tokens
        ),
        queue=_to_queue(message.queue),
    )


def from_tenant(tenant: Tenant, keys: Iterable[Key] = ()) -> tenant_pb.Tenant:
    """Writes a tenant as stored."""
    budget = tenant.request_budget
    return tenant_pb.Tenant(
        tenant_id=tenant.tenant_id,
        display_name=tenant.display_name,
        weight=tenant.weight,
        guaranteed_slots=tenant.guaranteed_slots,
        limit_slots=tenant.limit_slots,
        request_budget=tenant_pb.RequestBudget(
            min_tokens=budget.min_tokens, default_tokens=budget.default_tokens, max_tokens=budget.max_tokens
        ),
        etag=tenant.etag,
        queue=tenant_pb.QueueLimits(
            max_requests=tenant.queue.max_requests, max_wait=_to_duration(tenant.queue.max_wait_ns)
        ),
        keys=[tenant_pb.TenantKey(key_id=key.key_id, expire_time=to_timestamp(key.expire_ns)) for key in keys],
    )


def to_expire_ns(request: tenant_pb.CreateTenantKeyRequest, *, now_ns: int) -> int | None:
    """Returns when the key that is asked for expires, in nanoseconds since the epoch; None: never.

    Raises:
        InvalidRequestError: The time to live is out of range.
    """
    if not request.HasField("ttl"):
        return None
    ttl_ns = request.ttl.ToNanoseconds()
    if not (0 < ttl_ns <= MAX_KEY_TTL_S * 10**9 and 0 <= request.ttl.nanos < 10**9):
        raise InvalidRequestError(
            f"ttl: given {request.ttl.seconds} s and {request.ttl.nanos} ns; allowed is more than 0 s, at most "
            f"{MAX_KEY_TTL_S} s (3650 days). Leave it out for a key that holds until it is revoked.",
            field="ttl",
        )
    return now_ns + ttl_ns


def to_timestamp(wall_ns: int | None) -> Timestamp | None:
    """Writes a time in nanoseconds since the epoch; None where there is none."""
    if wall_ns is None:
        return None
    message = Timestamp()
    message.FromNanoseconds(wall_ns)
    return message


def from_profile(profile: Profile, *, active: bool) -> profile_pb.Profile:
    """Writes a profile without its content."""
    message = profile_pb.Profile(
        profile_id=profile.profile_id,
        model_fingerprint=profile.model_fingerprint,
        model_name=profile.model_name,
        num_layers=profile.num_layers,
        active=active,
    )
    message.create_time.FromNanoseconds(profile.created_ns)
    return message


def to_report(message: lease_pb.LeaseRequest) -> Report:
    """Reads a replica's report.

    Raises:
        InvalidRequestError: A field is out of range.
    """
    # Replicas that join at once share a transaction, which a database that takes no NUL would refuse to all.
    if not 1 <= len(message.replica_id) <= _MAX_REPLICA_ID or is_control(message.replica_id):
        raise InvalidRequestError(
            f"replica_id: given {len(message.replica_id)} characters, {message.replica_id[:80]!a}; allowed are "
            f"1 to {_MAX_REPLICA_ID}, none of them a control character.",
            field="replica_id",
        )
    _check_range("capacity_slots", message.capacity_slots, 1, MAX_SLOTS)
    _check_range("used_slots", message.used_slots, 0, MAX_SLOTS)
    _check_range("bytes_per_slot", message.bytes_per_slot, 0, MAX_SLOTS)
    for name in ("model", "profile_id"):
        if len(getattr(message, name)) > _MAX_NAME:
            raise InvalidRequestError(
                f"{name}: given {len(getattr(message, name))} characters; allowed are at most {_MAX_NAME}.", field=name
            )
    return Report(
        replica_id=message.replica_id,
        model=message.model,
        capacity_slots=message.capacity_slots,
        used_slots=message.used_slots,
        bytes_per_slot=message.bytes_per_slot,
        profile_id=message.profile_id,
        tenants=_to_uses(message.tenants),
        applied_seq=message.applied_seq if message.HasField("applied_seq") else None,
        incremental=message.incremental,
        report_seq=message.report_seq,
    )


def wall_ns(deadline_s: float, now: float) -> int:
    """Returns a deadline on the controller's clock as nanoseconds since the epoch."""
    return time.time_ns() + round((deadline_s - now) * 1e9)


def _to_uses(demands: Iterable[lease_pb.TenantDemand]) -> dict[str, TenantUse]:
    uses: dict[str, TenantUse] = {}
    for i, demand in enumerate(demands):
        if demand.tenant_id in uses:
            raise InvalidRequestError(
                f"tenants[{i}].tenant_id: {demand.tenant_id[:80]!r} is given twice; report each tenant once.",
                field=f"tenants[{i}].tenant_id",
            )
        use = TenantUse(
            reserved_slots=demand.reserved_slots,
            wanted_slots=demand.wanted_slots,
            active_requests=demand.active_requests,
            refused_requests=demand.refused_requests,
            leased_slots=demand.leased_slots,
            queued_requests=demand.queued_requests,
            squeezed_slots=demand.squeezed_slots,
        )
        for name, most in _USE_FIELDS:
            if not 0 <= getattr(use, name) <= most:
                _check_range(f"tenants[{i}].{name}", getattr(use, name), 0, most)
        uses[demand.tenant_id] = use
    return uses


def _check_range(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidRequestError(f"{field}: given {value}; allowed is {least} to {most}.", field=field)


def _to_queue(message: tenant_pb.QueueLimits) -> QueueLimits:
    wait = message.max_wait
    if not 0 <= wait.nanos < 10**9:
        field = "tenant.queue.max_wait"
        raise InvalidRequestError(
            f"{field}: given {wait.seconds} s and {wait.nanos} ns; allowed are 0 to 999999999 ns.", field=field
        )
    return QueueLimits(max_requests=message.max_requests, max_wait_ns=wait.ToNanoseconds())


def _to_duration(span_ns: int) -> Duration | None:
    """Writes a span; None where it is 0, which is left unset."""
    if not span_ns:
        return None
    message = Duration()
    message.FromNanoseconds(span_ns)
    return message
