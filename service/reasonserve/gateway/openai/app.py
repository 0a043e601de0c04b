"""The OpenAI-compatible HTTP API: a thin translation in front of ``GatewayService``. Knows nothing of Ray."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.errors import NotFoundError
from reasonserve.gateway.auth import Metadata
from reasonserve.gateway.openai.bodies import Body, ChatBody, CompletionBody
from reasonserve.gateway.openai.errors import refusal
from reasonserve.gateway.openai.requests import chat_request, completion_request, parse_body
from reasonserve.gateway.openai.responses import Frame, model_json, models_json
from reasonserve.gateway.service import GatewayService, Piece, whole

REQUEST_ID_HEADER = "x-request-id"
SSE_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
Handler = Callable[[Request], Awaitable[Response]]
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two kinds of completion.

    Attributes:
        name: Which.
        parse: Makes a typed body of a raw one.
        translate: Makes the contract's request of a typed body.
    """

    name: Literal["chat", "completion"]
    parse: Callable[[bytes], Body]
    translate: Callable[[Any], pb.GenerateRequest]


CHAT = Kind("chat", lambda data: parse_body(ChatBody, data), chat_request)
COMPLETION = Kind("completion", lambda data: parse_body(CompletionBody, data), completion_request)


class Exchange:
    """One completion request: read, run, answered.

    Args:
        kind: Which kind of completion.
        service: Where it runs.
        data: The body.
        metadata: Headers.
    """

    def __init__(self, kind: Kind, service: GatewayService, data: bytes, metadata: Metadata) -> None:
        self._kind = kind
        self._data = data
        self._body: Body | None = None
        self._created = int(time.time())
        self._pieces = service.generate(
            self._request, metadata, protocol="http", is_streamed=lambda: bool(self._body and self._body.stream)
        )

    def _request(self) -> pb.GenerateRequest:
        self._body = self._kind.parse(self._data)
        return self._kind.translate(self._body)

    async def respond(self) -> Response:
        """Returns the answer; a stream is returned once its first piece is there, so that refusals keep their code."""
        try:
            first = await anext(self._pieces)
            frame = Frame(
                kind=self._kind.name,
                request_id=first.call.request_id,
                model=self._model(),
                created=self._created,
            )
            headers = {REQUEST_ID_HEADER: first.call.request_id}
            if self._body is not None and self._body.stream:
                events = self._events(frame, first)
                return StreamingResponse(events, media_type="text/event-stream", headers=headers | SSE_HEADERS)
            async with aclosing(self._pieces) as pieces:
                _, outputs, usage = await whole(_chain(first, pieces))
            return JSONResponse(frame.whole(outputs, usage), headers=headers)
        except BaseException:
            await self._pieces.aclose()
            raise

    def _model(self) -> str:
        return self._body.model if self._body is not None else ""

    async def _events(self, frame: Frame, first: Piece) -> AsyncGenerator[bytes, None]:
        """Yields server-sent events; an error after the first one is an event too, and the last."""
        opened: set[int] = set()
        async with aclosing(self._pieces) as pieces:
            try:
                async for piece in _chain(first, pieces):
                    index = piece.delta.index
                    if self._kind.name == "chat" and index not in opened:
                        opened.add(index)
                        yield event(frame.opening(index))
                    yield event(frame.chunk(piece.delta))
                    if piece.usage is not None and self._wants_usage():
                        yield event(frame.closing(piece.usage))
            except Exception as error:
                yield event(refusal(error).body)
                return
        yield DONE

    def _wants_usage(self) -> bool:
        options = self._body.stream_options if self._body is not None else None
        return options is not None and bool(options.include_usage)


def event(data: dict[str, Any]) -> bytes:
    """Returns one server-sent event."""
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


async def _chain(first: Piece, rest: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    yield first
    async for piece in rest:
        yield piece


def refusing(handler: Handler) -> Handler:
    """Returns a handler that answers every exception; none may leave it, for Ray Serve would tell its traceback."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except HTTPException:
            raise
        except Exception as error:
            told = refusal(error)
            return JSONResponse(told.body, told.status, headers=told.headers)

    return handle


def build_app(service: GatewayService, *, max_body_bytes: int) -> Starlette:
    """Returns the HTTP application.

    Args:
        service: What answers.
        max_body_bytes: Largest body that is read.
    """
    started = int(time.time())

    def completion(kind: Kind) -> Handler:
        @refusing
        async def handle(request: Request) -> Response:
            data = await _read(request, max_body_bytes)
            return await Exchange(kind, service, data, metadata_of(request)).respond()

        return handle

    @refusing
    async def list_models(request: Request) -> Response:
        return JSONResponse(models_json(await service.models(metadata_of(request)), started))

    @refusing
    async def get_model(request: Request) -> Response:
        name = request.path_params["name"]
        for info in await service.models(metadata_of(request)):
            if info.name == name:
                return JSONResponse(model_json(info, started))
        raise NotFoundError("There is no such model; GET /v1/models lists those that are served.", field="model")

    routes = [
        Route("/v1/chat/completions", completion(CHAT), methods=["POST"]),
        Route("/v1/completions", completion(COMPLETION), methods=["POST"]),
        Route("/v1/models", list_models, methods=["GET"]),
        Route("/v1/models/{name:path}", get_model, methods=["GET"]),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _on_http_error})


def metadata_of(request: Request) -> Metadata:
    """Returns a request's headers as call metadata."""
    return tuple(request.headers.items())


async def _read(request: Request, limit: int) -> bytes:
    """Returns the body.

    Raises:
        HTTPException: It is larger than the limit; no more than that is read.
    """
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > limit:
            raise HTTPException(413, f"The body has more than {limit} bytes; shorten the input.")
    return bytes(data)


async def _on_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}.get(error.status_code, "http_error")
    message = (
        error.detail if error.status_code == 413 else "There is no such call; see the HTTP guide for those served."
    )
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return JSONResponse(body, error.status_code, headers=error.headers)
