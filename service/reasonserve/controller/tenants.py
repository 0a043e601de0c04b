"""Checks of a tenant's fields: pure, and each message names the field, what was given and what is allowed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from reasonserve.controller.records import QueueLimits, Tenant
from reasonserve.errors import InvalidRequestError, PreconditionError

MIN_REQUEST_TOKENS = 32
MAX_WEIGHT = 100_000
MUTABLE_FIELDS = ("display_name", "weight", "guaranteed_slots", "limit_slots", "request_budget", "queue")
MAX_QUEUED_REQUESTS = 1024
"""A request that begins to wait is weighed against all of its tenant's that wait: 3 ms of one core at this many."""
MIN_WAIT_NS, MAX_WAIT_NS = 10**6, 3600 * 10**9
_TENANT_ID = re.compile(r"[a-z][a-z0-9-]{0,62}")
_MAX_DISPLAY_NAME = 256


def check_tenant(tenant: Tenant) -> None:
    """Refuses a tenant whose fields are out of range or contradict each other.

    Raises:
        InvalidRequestError: Names the field.
    """
    if not _TENANT_ID.fullmatch(tenant.tenant_id):
        raise _invalid(
            "tenant_id",
            repr(tenant.tenant_id[:80]),
            "lower-case letters, digits and hyphens, a letter first, 1 to 63 characters",
        )
    if len(tenant.display_name) > _MAX_DISPLAY_NAME:
        raise _invalid("display_name", f"{len(tenant.display_name)} characters", f"at most {_MAX_DISPLAY_NAME}")
    if not 1 <= tenant.weight <= MAX_WEIGHT:
        raise _invalid("weight", str(tenant.weight), f"1 to {MAX_WEIGHT}")
    if is_control(tenant.display_name):
        raise _invalid("display_name", "control characters", "text on one line")
    _check_at_least("guaranteed_slots", tenant.guaranteed_slots, 0)
    _check_at_least("limit_slots", tenant.limit_slots, tenant.guaranteed_slots, "guaranteed_slots")
    budget = tenant.request_budget
    _check_at_least("request_budget.min_tokens", budget.min_tokens, MIN_REQUEST_TOKENS)
    _check_at_least("request_budget.default_tokens", budget.default_tokens, budget.min_tokens, "min_tokens")
    _check_at_least("request_budget.max_tokens", budget.max_tokens, budget.default_tokens, "default_tokens")
    _check_queue(tenant.queue)


def is_control(text: str) -> bool:
    """Returns whether a text holds a control character."""
    return any(unicodedata.category(character) == "Cc" for character in text)


def overcommit(guaranteed_slots: int, capacity_slots: int) -> str:
    """Returns by how much the guarantees exceed the capacity and what to do, or an empty text.

    Args:
        guaranteed_slots: Sum of all guarantees.
        capacity_slots: What the cluster holds; 0 when it is not known, which passes.
    """
    if not 0 < capacity_slots < guaranteed_slots:
        return ""
    return (
        f"The tenants' guarantees sum to {guaranteed_slots} slots, {guaranteed_slots - capacity_slots} more than the "
        f"{capacity_slots} that the cluster holds: lower guaranteed_slots or add replicas."
    )


def check_guarantees(guaranteed_slots: int, capacity_slots: int) -> None:
    """Refuses guarantees that the cluster cannot hold together; arguments as for `overcommit`.

    Raises:
        PreconditionError: The guarantees exceed the capacity.
    """
    message = overcommit(guaranteed_slots, capacity_slots)
    if message:
        raise PreconditionError(
            f"{message} Or set allow_overcommit to accept that not all can be met at once.",
            field="tenant.guaranteed_slots",
        )


def merge(stored: Tenant, given: Tenant, mask: Sequence[str]) -> Tenant:
    """Returns the stored tenant with the masked fields of the given one.

    Raises:
        InvalidRequestError: The mask is empty or names a field that cannot be changed.
    """
    allowed = ", ".join(MUTABLE_FIELDS)
    if not mask:
        raise InvalidRequestError(
            f"update_mask is empty: name the fields to change, of {allowed}.", field="update_mask"
        )
    for path in mask:
        if path not in MUTABLE_FIELDS:
            raise InvalidRequestError(f"update_mask names {path[:80]!r}: allowed are {allowed}.", field="update_mask")
    return replace(stored, **{path: getattr(given, path) for path in mask})


def _check_queue(queue: QueueLimits) -> None:
    if not 0 <= queue.max_requests <= MAX_QUEUED_REQUESTS:
        raise _invalid(
            "queue.max_requests", str(queue.max_requests), f"1 to {MAX_QUEUED_REQUESTS}, or 0 for the replica's own"
        )
    if queue.max_wait_ns and not MIN_WAIT_NS <= queue.max_wait_ns <= MAX_WAIT_NS:
        given = f"{Decimal(queue.max_wait_ns).scaleb(-9).normalize():f} s"
        raise _invalid("queue.max_wait", given, "0.001 s to 3600 s, or 0 for the replica's own")


def _check_at_least(name: str, value: int, least: int, source: str = "") -> None:
    if value < least:
        raise _invalid(name, str(value), f"at least {least}" + (f", the {source}" if source else ""))


def _invalid(name: str, given: str, allowed: str) -> InvalidRequestError:
    field = f"tenant.{name}"
    return InvalidRequestError(f"{field}: given {given}; allowed is {allowed}.", field=field)
