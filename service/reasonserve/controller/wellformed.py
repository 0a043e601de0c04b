"""Answers bytes that are no message of a method with INVALID_ARGUMENT; gRPC itself would log a traceback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from reasonserve.controller.translate import abort
from reasonserve.errors import InvalidRequestError

# Generic in the stubs alone.
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Parse: TypeAlias = Callable[[bytes], Any]
_MALFORMED = object()
_API_PREFIX = "/reasonserve.api."


class WellFormedInterceptor(grpc.aio.ServerInterceptor):
    """To be the outermost, so that no other sees what is malformed."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """Wraps the methods of this API."""
        found = await continuation(handler_call_details)
        if found is None or not handler_call_details.method.startswith(_API_PREFIX):
            return found
        # The stubs know the blocking kind of method alone.
        handler: Any = found
        parse = _tolerant(handler.request_deserializer) if handler.request_deserializer else None
        write = handler.response_serializer
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(_unary(handler.unary_unary), parse, write)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(_watch(handler.unary_stream), parse, write)
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(_stream(handler.stream_unary), parse, write)
        return grpc.stream_stream_rpc_method_handler(_stream(handler.stream_stream), parse, write)


def _tolerant(parse: _Parse) -> _Parse:
    def tolerant(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return _MALFORMED

    return tolerant


def _unary(behavior: Any) -> Any:
    async def checked(request: Any, context: _Context) -> Any:
        if request is _MALFORMED:
            await abort(context, _error())
        return await behavior(request, context)

    return checked


def _watch(behavior: Any) -> Any:
    async def checked(request: Any, context: _Context) -> AsyncIterator[Any]:
        if request is _MALFORMED:
            await abort(context, _error())
        async for response in behavior(request, context):
            yield response

    return checked


def _stream(behavior: Any) -> Any:
    async def checked(requests: AsyncIterator[Any], context: _Context) -> Any:
        return await behavior(_checked(requests), context)

    return checked


async def _checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if request is _MALFORMED:
            raise _error()
        yield request


def _error() -> InvalidRequestError:
    return InvalidRequestError("The request is no message of this method: send what its proto file declares.")
