"""Who may call the controller: whoever presents the admin token."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from reasonserve import status
from reasonserve.controller_client import read_admin_token
from reasonserve.errors import StartupError, UnauthenticatedError

_OPEN_PREFIXES = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
_DENIED = UnauthenticatedError(
    "The admin token is missing or wrong: send `authorization: Bearer TOKEN` with the token of the controller's file."
)


def ensure_admin_token(path: Path) -> str:
    """Returns the admin token; draws one into a file of mode 0600 where there is none.

    Raises:
        StartupError: Others may read the file, or it cannot be read or written.
    """
    try:
        _create(path)
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise StartupError(f"Cannot use the admin token file {path}: {error.strerror}.") from error
    if mode & 0o077:
        raise StartupError(
            f"The admin token file {path} has mode {mode:04o}, so others may have read the token: "
            f"delete it and restart to draw a new one, or run `chmod 600 {path}` if nobody did."
        )
    return read_admin_token(path)


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")


class AdminInterceptor(grpc.aio.ServerInterceptor):
    """Refuses every call without the admin token, health checks and reflection excepted.

    Args:
        token: The admin token.
    """

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()
        self._deny: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(_deny)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Passes the call on, or answers it with UNAUTHENTICATED before its first message is read."""
        if handler_call_details.method.startswith(_OPEN_PREFIXES) or self._may(handler_call_details):
            return await continuation(handler_call_details)
        return self._deny

    def _may(self, details: grpc.HandlerCallDetails) -> bool:
        presented = [value for key, value in details.invocation_metadata or () if key == "authorization"]
        return len(presented) == 1 and secrets.compare_digest(_as_bytes(presented[0]), self._expected)


def _as_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


async def _deny(_requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    # Of all method kinds only this one answers without waiting for a message.
    await context.abort(status.grpc_code(_DENIED), _DENIED.message, trailing_metadata=status.trailing_metadata(_DENIED))
