"""What Ray Serve's gRPC proxy mounts: our service, with streams whose cancellation always gets through.

Ray Serve 2.60 cancels a request when the client's cancellation finds its proxy waiting for the replica. When it
finds the proxy sending a message (for a client that reads slowly: nearly always) the proxy's generators are closed
instead, nobody tells the replica, and the request holds its KV memory until it has generated its last token. So a
task of our own runs Ray's stream handler and never leaves it waiting for the client; when the call is cancelled, so is
the task.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc

from reasonserve.api.v1.generation_service_pb2_grpc import add_GenerationServiceServicer_to_server
from reasonserve.telemetry.sampling import honour_parents
from reasonserve.telemetry.settings import TelemetrySettings

Context = grpc.aio.ServicerContext[Any, Any]
StreamHandler = Callable[[Any, Context], AsyncIterator[Any]]
WritingHandler = Callable[[Any, Context], Awaitable[None]]


def add_generation_service(servicer: Any, server: Any) -> None:
    """Adds ``reasonserve.api.v1.GenerationService`` to a server; name it in ``grpc_servicer_functions``.

    The first code of ours that the proxy runs once its tracing is set up.
    """
    honour_parents(TelemetrySettings().sampling_ratio)
    add_GenerationServiceServicer_to_server(servicer, _Registrar(server))  # type: ignore[no-untyped-call]


class _Registrar:
    """Stands in for the server while the generated code registers handlers."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        self._server.add_generic_rpc_handlers(tuple(_RelayingHandlers(h._method_handlers) for h in handlers))

    def add_registered_method_handlers(self, service_name: str, handlers: Mapping[str, Any]) -> None:
        """Leaves out the table that gRPC looks into first; the generic handlers serve the same methods."""


class _RelayingHandlers(grpc.GenericRpcHandler):
    """Handlers by method; Ray's server replaces ``_method_handlers`` with its own when they are added."""

    def __init__(self, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
        self._method_handlers = method_handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Returns the handler of a method, its stream relayed; None for a method of another service."""
        handler: Any = self._method_handlers.get(handler_call_details.method)
        if handler is None or not handler.response_streaming:
            return handler
        return handler._replace(unary_stream=relayed(handler.unary_stream))


def relayed(handler: StreamHandler) -> WritingHandler:
    """Returns a stream handler whose body is cancelled when the call is, whatever the call waits for then.

    Messages wait in memory for a slow client; a request's token limit bounds them. The body has ended before the call
    has: Ray's looks into the call's context to its last line, and a context that outlives its call crashes.
    """

    async def relay(request: Any, context: Context) -> None:
        messages: asyncio.Queue[Any] = asyncio.Queue()

        async def pump() -> None:
            try:
                async for message in handler(request, context):
                    messages.put_nowait(message)
            finally:
                messages.put_nowait(None)

        task = asyncio.create_task(pump())
        try:
            while (message := await messages.get()) is not None:
                await context.write(message)
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return relay
