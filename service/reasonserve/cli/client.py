"""Blocking clients of the controller and the gateway; every failure is a `ReasonServeError`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import grpc
from pydantic_settings import SettingsConfigDict

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import generation_service_pb2_grpc as pb_grpc
from reasonserve.config import DEFAULT_CONTROLLER_PORT, DEFAULT_GATEWAY_PORT
from reasonserve.controller_client import (
    ControllerTls,
    Stubs,
    admin_metadata,
    open_blocking_channel,
    read_admin_token,
    stubs,
)
from reasonserve.errors import StartupError, UnauthenticatedError, UnavailableError
from reasonserve.stack.control import running
from reasonserve.stack.paths import StatePaths
from reasonserve.status import DETAILS_KEY, from_rpc_error
from reasonserve.telemetry.tracing import TraceparentInterceptor

ADMIN_TIMEOUT_S = 20.0

Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class Admin:
    """The controller as an administrator calls it.

    Attributes:
        services: Its services.
        metadata: What presents the admin token.
        endpoint: Where it is called.
    """

    services: Stubs
    metadata: tuple[tuple[str, str], ...]
    endpoint: str

    def call(self, rpc: Callable[..., Response], request: Any) -> Response:
        """Calls a method.

        Raises:
            ReasonServeError: The call failed.
        """
        try:
            return rpc(request, metadata=self.metadata, timeout=ADMIN_TIMEOUT_S)
        except grpc.RpcError as error:
            # Pairs at run time; the stubs do not know.
            metadata = cast("Iterable[tuple[str, bytes]]", error.trailing_metadata() or ())
            worded = any(key == DETAILS_KEY for key, _ in metadata)
            if error.code() is grpc.StatusCode.UNAVAILABLE and not worded:
                raise UnavailableError(
                    f"The controller at {self.endpoint} cannot be reached: `reasonserve up` starts one here; "
                    "--controller or REASONSERVE_CONTROLLER names another."
                ) from error
            raise from_rpc_error(error) from error


@contextmanager
def admin(controller: str | None, token: str | None, state_dir: Path | None) -> Iterator[Admin]:
    """Connects to the controller named, else to that of the stack that runs here.

    Raises:
        StartupError: No token was given and the state directory has none.
    """
    paths = StatePaths.resolve(state_dir)
    if controller is None:
        state = running(paths)
        controller = state.controller_endpoint if state else f"127.0.0.1:{DEFAULT_CONTROLLER_PORT}"
    if not token and not paths.admin_token_file.exists():
        raise StartupError(
            f"No token was given, and {paths.admin_token_file} is not there: pass --admin-token, set "
            "REASONSERVE_ADMIN_TOKEN, or name with --state-dir where `reasonserve up` ran."
        )
    metadata = admin_metadata(token or read_admin_token(paths.admin_token_file))
    with open_blocking_channel(controller) as channel:
        yield Admin(stubs(channel), metadata, controller)


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway as a tenant calls it.

    Attributes:
        stub: Its service.
        metadata: What presents the tenant's key.
    """

    stub: pb_grpc.GenerationServiceStub
    metadata: tuple[tuple[str, str], ...]

    def generate(self, request: pb.GenerateRequest) -> pb.GenerateResponse:
        """Returns the whole answer.

        Raises:
            ReasonServeError: The call failed.
        """
        try:
            response: pb.GenerateResponse = self.stub.Generate(request, metadata=self.metadata)
            return response
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def stream(self, request: pb.GenerateRequest) -> Iterator[pb.GenerateResponse]:
        """Yields the answer as it grows; closing the iterator cancels the call.

        Raises:
            ReasonServeError: The call failed.
        """
        call = self.stub.GenerateStream(request, metadata=self.metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()


class FrontTls(ControllerTls):
    """The same for the front: ``REASONSERVE_TLS_CA_FILE``, and ``..._CERT_FILE`` with ``..._KEY_FILE`` for mTLS."""

    model_config = SettingsConfigDict(env_prefix="REASONSERVE_TLS_", frozen=True)


@contextmanager
def gateway(endpoint: str, api_key: str | None) -> Iterator[Gateway]:
    """Connects to a gateway, or to the front before it where ``REASONSERVE_TLS_CA_FILE`` is set.

    Calls carry the trace of the span they are made in.

    Raises:
        UnauthenticatedError: No key was given.
        StartupError: As `ControllerTls.credentials`.
    """
    if not api_key:
        raise UnauthenticatedError(
            "No tenant key was given; pass --api-key or set REASONSERVE_API_KEY. "
            "`reasonserve tenant key create TENANT` makes one."
        )
    credentials = FrontTls().credentials()
    with grpc.secure_channel(endpoint, credentials) if credentials else grpc.insecure_channel(endpoint) as channel:
        traced = grpc.intercept_channel(channel, TraceparentInterceptor())
        stub = pb_grpc.GenerationServiceStub(traced)  # type: ignore[no-untyped-call]  # generated
        yield Gateway(stub, (("authorization", f"Bearer {api_key}"),))


def gateway_endpoint(endpoint: str | None, state_dir: Path | None) -> str:
    """Returns the endpoint named, else that of the stack that runs here, else the default."""
    if endpoint:
        return endpoint
    state = running(StatePaths.resolve(state_dir))
    return state.gateway_endpoint if state else f"127.0.0.1:{DEFAULT_GATEWAY_PORT}"
