"""Who may call what: the admin token everything, the operator token reads, a tenant's key its own tenant."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import grpc

from reasonserve.controller.keyring import Keyring
from reasonserve.controller.translate import abort
from reasonserve.errors import PermissionDeniedError, ReasonServeError, UnauthenticatedError

_OPEN_PREFIXES = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
_API = "/reasonserve.api.v1."
TENANT_METHODS = frozenset({f"{_API}TenantService/GetTenant", f"{_API}TenantService/ListTenantUsage"})
OPERATOR_METHODS = TENANT_METHODS | {
    f"{_API}TenantService/ListTenants",
    f"{_API}ProfileService/GetProfile",
    f"{_API}ProfileService/ListProfiles",
    f"{_API}ClusterService/GetClusterStatus",
    f"{_API}ClusterService/WatchCluster",
}
_SCHEME = "Bearer "
_FIRST_MESSAGE_S = 0.2

# Generic in the stubs alone.
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls.

    Attributes:
        methods: What it may call; None means everything.
        tenant_id: The only tenant it may name; empty means any.
    """

    methods: frozenset[str] | None = None
    tenant_id: str = ""


_ADMIN = Caller()
_OPERATOR = Caller(methods=OPERATOR_METHODS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The controller's own tokens. An empty operator token lets nobody in."""

    admin: str
    operator: str = ""


class ScopeInterceptor(grpc.aio.ServerInterceptor):
    """Refuses what the caller may not, whatever its message says; health checks and reflection are open.

    Args:
        tokens: The controller's own tokens.
        keyring: Resolves tenants' keys.
    """

    def __init__(self, tokens: Tokens, keyring: Keyring) -> None:
        self._callers = [(tokens.admin.encode(), _ADMIN)]
        if tokens.operator:
            self._callers.append((tokens.operator.encode(), _OPERATOR))
        self._keyring = keyring

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """Passes the call on, or answers it with UNAUTHENTICATED or PERMISSION_DENIED."""
        method = handler_call_details.method
        if method.startswith(_OPEN_PREFIXES):
            return await continuation(handler_call_details)
        try:
            caller = await self._caller(handler_call_details)
            check_method(caller, method)
        except ReasonServeError as error:
            return _refusal(error)
        handler = await continuation(handler_call_details)
        return _for_own_tenant(handler, caller.tenant_id) if handler and caller.tenant_id else handler

    async def _caller(self, details: grpc.HandlerCallDetails) -> Caller:
        presented = [value for key, value in details.invocation_metadata or () if key == "authorization"]
        value = _as_text(presented[0]) if len(presented) == 1 else ""
        if not value.startswith(_SCHEME):
            raise _unknown()
        given = value.removeprefix(_SCHEME)
        for token, caller in self._callers:
            if secrets.compare_digest(given.encode(), token):
                return caller
        key = await self._keyring.resolve(given)
        if key is None:
            raise _unknown()
        return Caller(methods=TENANT_METHODS, tenant_id=key.tenant_id)


def check_method(caller: Caller, method: str) -> None:
    """Refuses a method outside the caller's scope.

    Raises:
        PermissionDeniedError: The caller may not call it.
    """
    if caller.methods is None or method in caller.methods:
        return
    allowed = ", ".join(sorted(name.rsplit("/", 1)[1] for name in caller.methods))
    raise PermissionDeniedError(
        f"The token presented does not allow {method.rsplit('/', 1)[-1][:80]}; it allows {allowed}: "
        "present the admin token."
    )


def _for_own_tenant(handler: _Handler, tenant_id: str) -> _Handler:
    """Wraps a unary method whose request names a tenant."""
    # The stubs know the blocking kind of method alone.
    behavior: Callable[[Any, _Context], Awaitable[Any]] = cast("Any", handler.unary_unary)

    async def checked(request: Any, context: _Context) -> Any:
        if request.tenant_id != tenant_id:
            denied = PermissionDeniedError(
                f"tenant_id: given {request.tenant_id[:80]!r}; allowed with this key is {tenant_id!r} alone.",
                field="tenant_id",
            )
            await abort(context, denied)
        return await behavior(request, context)

    return grpc.unary_unary_rpc_method_handler(checked, handler.request_deserializer, handler.response_serializer)


def _unknown() -> UnauthenticatedError:
    return UnauthenticatedError(
        "The token is missing or wrong: send `authorization: Bearer TOKEN` with the admin token, the operator token "
        "or a tenant's key."
    )


def _refusal(error: ReasonServeError) -> _Handler:
    async def refuse(requests: AsyncIterator[object], context: _Context) -> None:
        # A client in grpc.aio whose message meets a stream that has ended calls that INTERNAL and never learns the
        # status (github.com/grpc/grpc/issues/36066): the message on its way is let in first.
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_MESSAGE_S):
                await anext(requests, None)
        await abort(context, error)

    # Of all method kinds only this one can answer without a message.
    return grpc.stream_stream_rpc_method_handler(refuse)


def _as_text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
