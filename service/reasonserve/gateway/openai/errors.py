"""From an exception to an answer of the OpenAI-compatible API; the one place where HTTP status codes are chosen."""

from __future__ import annotations

import logging
import math
from typing import Any, NamedTuple

import grpc

from reasonserve.errors import BudgetExhaustedError, InvalidRequestError, ReasonServeError
from reasonserve.gateway.errors import DEADLINE_MESSAGE, DeadlinePassedError
from reasonserve.gateway.openai.requests import param_of
from reasonserve.status import RULES, grpc_code, to_rpc_status

UNAVAILABLE_RETRY_S = 1.0

logger = logging.getLogger(__name__)


class HttpStatus(NamedTuple):
    """How a canonical code travels over HTTP.

    Attributes:
        status: HTTP status code.
        kind: OpenAI's ``type``.
    """

    status: int
    kind: str


STATUSES: dict[grpc.StatusCode, HttpStatus] = {
    grpc.StatusCode.INVALID_ARGUMENT: HttpStatus(400, "invalid_request_error"),
    grpc.StatusCode.FAILED_PRECONDITION: HttpStatus(400, "invalid_request_error"),
    grpc.StatusCode.UNAUTHENTICATED: HttpStatus(401, "authentication_error"),
    grpc.StatusCode.PERMISSION_DENIED: HttpStatus(403, "permission_error"),
    grpc.StatusCode.NOT_FOUND: HttpStatus(404, "not_found_error"),
    grpc.StatusCode.ALREADY_EXISTS: HttpStatus(409, "invalid_request_error"),
    grpc.StatusCode.ABORTED: HttpStatus(409, "invalid_request_error"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: HttpStatus(429, "rate_limit_error"),
    grpc.StatusCode.INTERNAL: HttpStatus(500, "server_error"),
    grpc.StatusCode.UNAVAILABLE: HttpStatus(503, "server_error"),
    grpc.StatusCode.DEADLINE_EXCEEDED: HttpStatus(504, "timeout_error"),
}
"""Tests hold it against every code that ``reasonserve.status`` has."""


class Refusal(NamedTuple):
    """An error as it is sent.

    Attributes:
        status: HTTP status code.
        body: OpenAI's error object.
        headers: When to retry, where that helps.
    """

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


def refusal(error: Exception) -> Refusal:
    """Returns what a client is told of an exception; of an unforeseen one, nothing."""
    if isinstance(error, DeadlinePassedError):
        return _refusal(grpc.StatusCode.DEADLINE_EXCEEDED, DEADLINE_MESSAGE, code="deadline_exceeded")
    if not isinstance(error, ReasonServeError):
        logger.exception("A request failed for a reason that nobody foresaw.", exc_info=error)
        return _refusal(grpc_code(error), to_rpc_status(error).message, code="internal")
    message, param = to_rpc_status(error).message, param_of(error.field)
    if error.field and param != error.field:
        message = message.replace(error.field, param, 1)
    if isinstance(error, InvalidRequestError) and error.field == "model":
        return _refusal(grpc.StatusCode.NOT_FOUND, message, code="model_not_found", param="model")
    rule = next((RULES[cls] for cls in type(error).__mro__ if cls in RULES), None)
    code = rule.reason.lower() if rule else "internal"
    return _refusal(grpc_code(error), message, code=code, param=param or None, wait_s=_wait_s(error))


def _wait_s(error: ReasonServeError) -> float | None:
    if isinstance(error, BudgetExhaustedError):
        return error.retry_after_s
    return UNAVAILABLE_RETRY_S if grpc_code(error) is grpc.StatusCode.UNAVAILABLE else None


def _refusal(
    status: grpc.StatusCode, message: str, *, code: str, param: str | None = None, wait_s: float | None = None
) -> Refusal:
    http = STATUSES[status]
    headers = {}
    if wait_s is not None:
        wait_s = min(max(wait_s, 0.0), 3600.0)
        headers = {"retry-after": str(max(1, math.ceil(wait_s))), "retry-after-ms": str(math.ceil(wait_s * 1000))}
    body = {"error": {"message": message, "type": http.kind, "param": param, "code": code}}
    return Refusal(http.status, body, headers)
