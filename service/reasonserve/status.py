"""Exceptions to gRPC status and back; the only place that knows the canonical codes.

A status carries `google.rpc.ErrorInfo` (reason, domain, field), `BadRequest` where a field is
at fault and `RetryInfo` where a retry may succeed. Exceptions outside the tree of
`reasonserve.errors`, and those that must never travel, become INTERNAL with a fixed text:
their messages may hold paths and addresses.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import NamedTuple, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from reasonserve import errors

DOMAIN = "reasonserve"
DETAILS_KEY = "grpc-status-details-bin"
INTERNAL_MESSAGE = "The server failed to serve the request; its log says why."
CANCELLED_MESSAGE = "The call was cancelled."

_FOREIGN_MESSAGES: dict[grpc.StatusCode, str] = {
    grpc.StatusCode.UNAVAILABLE: "The server cannot be reached; check that it runs and retry.",
    grpc.StatusCode.DEADLINE_EXCEEDED: "The server did not answer before the deadline; retry or allow more time.",
    grpc.StatusCode.CANCELLED: CANCELLED_MESSAGE,
    grpc.StatusCode.UNKNOWN: INTERNAL_MESSAGE,
    grpc.StatusCode.INTERNAL: INTERNAL_MESSAGE,
}


# Places in code, in memory and on the network. A path of one part, such as /generate, says nothing.
_PRIVATE = re.compile(
    r"""
    File\ "[^"]*",\ line\ \d+(,\ in\ \S+)?
    | (?<![\w/])/(?!v1/)[\w.+@~-]+(/[\w.+@~-]+)+/?(:\d+)?
    | \b[\w-]+\.py\b(:\d+)?
    | \b\d{1,3}(\.\d{1,3}){3}\b(:\d+)?
    | \[[0-9a-fA-F]*(:[0-9a-fA-F]*){2,}\](:\d+)?
    | \b0x[0-9a-fA-F]{6,}\b
    """,
    re.VERBOSE,
)


class Rule(NamedTuple):
    """How a class of errors travels.

    Attributes:
        code: Canonical code.
        reason: `ErrorInfo.reason`, one per class, so the far side can tell classes apart.
    """

    code: grpc.StatusCode
    reason: str


# One entry per class; None never travels with its message. Tests hold it against the tree.
RULES: dict[type[errors.ReasonServeError], Rule | None] = {
    errors.ReasonServeError: None,
    errors.InvalidRequestError: Rule(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    errors.UnauthenticatedError: Rule(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    errors.PermissionDeniedError: Rule(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"),
    errors.NotFoundError: Rule(grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
    errors.AlreadyExistsError: Rule(grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS"),
    errors.StaleEtagError: Rule(grpc.StatusCode.ABORTED, "STALE_ETAG"),
    errors.PreconditionError: Rule(grpc.StatusCode.FAILED_PRECONDITION, "PRECONDITION_FAILED"),
    errors.BudgetExhaustedError: Rule(grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXHAUSTED"),
    errors.UnavailableError: Rule(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
    errors.StartupError: None,
}
_BY_REASON = {rule.reason: cls for cls, rule in RULES.items() if rule}
# A foreign RESOURCE_EXHAUSTED is gRPC's own limit on message sizes, not a tenant's budget.
_BY_CODE: dict[grpc.StatusCode, type[errors.ReasonServeError]] = {
    rule.code: cls for cls, rule in RULES.items() if rule and rule.code is not grpc.StatusCode.RESOURCE_EXHAUSTED
}


def public_text(message: str) -> str:
    """Returns a message without what is nobody's business: tracebacks, files, addresses, places in memory.

    Messages of ours have none; those that quote another library's words may.
    """
    told, traceback, _ = message.partition("Traceback (most recent call last)")
    return _PRIVATE.sub("...", told.rstrip() if traceback else told)


def grpc_code(error: BaseException) -> grpc.StatusCode:
    """Returns the canonical code of any exception; INTERNAL for an unknown one."""
    if isinstance(error, asyncio.CancelledError):
        return grpc.StatusCode.CANCELLED
    rule = _rule(error)
    return rule.code if rule else grpc.StatusCode.INTERNAL


def to_rpc_status(error: BaseException) -> status_pb2.Status:
    """Returns the `google.rpc.Status` of any exception, with its details packed."""
    status = status_pb2.Status(code=grpc_code(error).value[0])
    rule = _rule(error)
    if rule is None or not isinstance(error, errors.ReasonServeError):
        cancelled = status.code == code_pb2.CANCELLED
        status.message = CANCELLED_MESSAGE if cancelled else INTERNAL_MESSAGE
        return status
    status.message = public_text(error.message)
    metadata = {"field": error.field} if error.field else {}
    _pack(status, error_details_pb2.ErrorInfo(reason=rule.reason, domain=DOMAIN, metadata=metadata))
    if isinstance(error, errors.InvalidRequestError):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=status.message)
        _pack(status, error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.BudgetExhaustedError):
        retry = error_details_pb2.RetryInfo()
        # Clamped to an hour: a Duration holds neither infinity nor NaN.
        retry.retry_delay.FromNanoseconds(round(min(max(0.0, error.retry_after_s), 3600.0) * 1e9))
        _pack(status, retry)
    return status


def trailing_metadata(error: BaseException) -> tuple[tuple[str, bytes], ...]:
    """Returns the trailing metadata that carries the status' details to the client."""
    return ((DETAILS_KEY, to_rpc_status(error).SerializeToString()),)


def from_rpc_error(error: grpc.RpcError) -> errors.ReasonServeError:
    """Rebuilds the error that the server raised, from a failed call.

    A failure that the service did not word itself, such as a refused connection, gets a fixed
    text: gRPC's own texts hold addresses. The root class stands for codes without one of ours.
    """
    status = _status_of(error)
    info = _unpack(status, error_details_pb2.ErrorInfo)
    if info is None or info.domain != DOMAIN or info.reason not in _BY_REASON:
        return _foreign(error)
    cls, field = _BY_REASON[info.reason], info.metadata.get("field", "")
    if cls is errors.BudgetExhaustedError:
        retry = _unpack(status, error_details_pb2.RetryInfo) or error_details_pb2.RetryInfo()
        retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
        return errors.BudgetExhaustedError(status.message, retry_after_s=retry_after_s, field=field)
    return cls(status.message, field=field)


def _rule(error: BaseException) -> Rule | None:
    """Returns the rule of the nearest listed class."""
    for cls in type(error).__mro__:
        if cls in RULES:
            return RULES[cls]
    return None


def _pack(status: status_pb2.Status, detail: object) -> None:
    status.details.add().Pack(detail)


def _unpack(status: status_pb2.Status, kind: type) -> error_details_pb2.Any | None:
    """Returns the first detail of a kind, or None."""
    for packed in status.details:
        detail = kind()
        if packed.Unpack(detail):
            return detail
    return None


def _status_of(error: grpc.RpcError) -> status_pb2.Status:
    """Returns the status in a failed call's trailing metadata; an empty one where there is none."""
    # Pairs at run time, both of blocking and of asyncio calls; the stubs know neither.
    metadata = cast("Iterable[tuple[str, bytes]]", error.trailing_metadata() or ())
    for key, value in metadata:
        if key == DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


def _foreign(error: grpc.RpcError) -> errors.ReasonServeError:
    """Maps a failure that carries none of our details."""
    code = error.code()
    message = _FOREIGN_MESSAGES.get(code) or error.details() or INTERNAL_MESSAGE
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.UnavailableError(message)
    return _BY_CODE.get(code, errors.ReasonServeError)(message)
