"""The gateway's own gRPC server: a hop less than through Ray Serve's proxy, with reflection, health and deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.trace import SpanKind, Status, StatusCode
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_delay, wait_fixed

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import generation_service_pb2_grpc as pb_grpc
from reasonserve.errors import StartupError
from reasonserve.gateway.auth import Metadata
from reasonserve.gateway.errors import reported
from reasonserve.gateway.service import DEADLINE_KEY, GatewayService
from reasonserve.telemetry import names
from reasonserve.telemetry.tracing import context_of, tracer

Context = grpc.aio.ServicerContext[Any, Any]

SERVICE = pb.DESCRIPTOR.services_by_name["GenerationService"].full_name
BIND_PATIENCE_S = 10.0
"""For how long a port may still be held, by the gateway that this one replaces."""
TRACE_HEADERS = ("traceparent", "tracestate")
SERVER_OPTIONS = (
    # Without this a second stack would bind the same port and take half of the calls.
    ("grpc.so_reuseport", 0),
    # A client whose machine is gone says nothing; its requests must not hold KV memory until TCP gives up.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Clients may ask too whether the gateway is there, while a request waits long for its first token.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
)
SERVER_FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""Codes that OpenTelemetry's conventions count as errors of the server."""


class Listener:
    """Accepts calls. Make it on the loop that it serves on.

    Args:
        service: Answers them.
        host: Address to bind.
        port: Port to bind.
        max_message_bytes: A longer message is refused before it is read whole.
        max_calls: Calls at once; one more is refused as RESOURCE_EXHAUSTED.
    """

    def __init__(
        self, service: GatewayService, *, host: str, port: int, max_message_bytes: int, max_calls: int
    ) -> None:
        self._address = f"{host}:{port}"
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=max_calls,
            options=(
                *SERVER_OPTIONS,
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
            ),
        )
        # The generated functions are untyped; the ignore names nothing else.
        pb_grpc.add_GenerationServiceServicer_to_server(GenerationServicer(service), self._server)  # type: ignore[no-untyped-call]
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    async def start(self) -> int:
        """Binds and listens; returns the port.

        Raises:
            StartupError: The port is held by another process.
        """
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(RuntimeError), stop=stop_after_delay(BIND_PATIENCE_S), wait=wait_fixed(0.2)
        )
        try:
            port: int = await retrying(self._bind)
        except RetryError as error:
            raise StartupError(
                f"Another process listens at {self._address}; end it, or set gateway.port to a free port."
            ) from error
        await self._server.start()
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def stop(self, grace_s: float) -> None:
        """Takes no more calls, and ends those that run after ``grace_s`` seconds; safe to call twice."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)

    async def _bind(self) -> int:
        return self._server.add_insecure_port(self._address)


class GenerationServicer(pb_grpc.GenerationServiceServicer):
    """``reasonserve.api.v1.GenerationService``; see the proto.

    Args:
        service: Answers the calls.
    """

    def __init__(self, service: GatewayService) -> None:
        self._service = service

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> pb.GenerateResponse:  # noqa: N802
        """Generates the whole answer."""
        with _entrance("Generate", context), reported(context):
            return await self._service.answer(request, metadata_of(context))
        return pb.GenerateResponse()

    async def GenerateStream(self, request: pb.GenerateRequest, context: Context) -> None:  # noqa: N802
        """Generates the answer as it grows.

        It writes, in place of yielding: gRPC closes no generator of a client that leaves while a message is sent.
        """
        with _entrance("GenerateStream", context), reported(context):
            async with aclosing(self._service.stream(request, metadata_of(context))) as responses:
                async for response in responses:
                    await context.write(response)

    async def CountTokens(self, request: pb.CountTokensRequest, context: Context) -> pb.CountTokensResponse:  # noqa: N802
        """Counts the tokens of an input."""
        with _entrance("CountTokens", context), reported(context):
            return await self._service.count_tokens(request, metadata_of(context))
        return pb.CountTokensResponse()

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802
        """Lists what is served."""
        with _entrance("ListModels", context), reported(context):
            return await self._service.list_models(metadata_of(context))
        return pb.ListModelsResponse()


def metadata_of(context: Context) -> Metadata:
    """Returns a call's metadata, with gRPC's own deadline where the client gave no other."""
    metadata = tuple(context.invocation_metadata() or ())
    left_s = context.time_remaining()
    if left_s is None or any(name == DEADLINE_KEY for name, _ in metadata):
        return metadata
    return (*metadata, (DEADLINE_KEY, str(max(1, int(1000 * left_s)))))


@contextmanager
def _entrance(method: str, context: Context) -> Iterator[None]:
    """Runs a call in the server's span of its trace: a child of the caller's span, or a root."""
    sent = context.invocation_metadata() or ()
    carrier = {name: value for name, value in sent if name in TRACE_HEADERS and isinstance(value, str)}
    attributes = {names.RPC_SYSTEM: "grpc", names.RPC_SERVICE: SERVICE, names.RPC_METHOD: method}
    with tracer().start_as_current_span(
        f"{SERVICE}/{method}",
        context=context_of(carrier),
        kind=SpanKind.SERVER,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        code = grpc.StatusCode.CANCELLED
        try:
            yield
            code = context.code() or grpc.StatusCode.OK
        except asyncio.CancelledError:
            raise
        except BaseException:
            code = grpc.StatusCode.UNKNOWN
            raise
        finally:
            span.set_attribute(names.RPC_STATUS, code.value[0])
            if code in SERVER_FAULTS:
                span.set_status(Status(StatusCode.ERROR))
