"""What the gateway does with a call: who is calling, what is asked, run it, answer. Knows nothing of Ray or HTTP.

gRPC and HTTP come together in ``GatewayService.generate``: both hand over a ``GenerateRequest`` and get pieces back.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import NamedTuple, Protocol, TypeVar

from opentelemetry import trace

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.errors import InvalidRequestError, UnauthenticatedError, UnavailableError
from reasonserve.gateway.answer import Tally, Usage, WholeOutput
from reasonserve.gateway.auth import Authenticator, Metadata, bearer_key
from reasonserve.gateway.errors import DeadlinePassedError
from reasonserve.gateway.observe import Requests
from reasonserve.gateway.responses import model_message, stream_message, whole_message
from reasonserve.gateway.validate import check_envelope, parse_input, parse_request
from reasonserve.replica.messages import Delta, Failed, GenerateCall, Input, Item, ModelInfo, TokenCount
from reasonserve.telemetry import names
from reasonserve.telemetry.tracing import Parent, mark_failed, tracer

DEADLINE_KEY = "x-deadline-ms"
"""Metadata: milliseconds that the client waits. Ray Serve's proxy hides gRPC's own deadline from handlers; when that
one passes, the call is cancelled."""

Answer = TypeVar("Answer")


class Replicas(Protocol):
    """The replicas as the gateway calls them; each method picks one."""

    def generate(self, call: GenerateCall) -> AsyncGenerator[Item, None]:
        """Runs a call; closing what it returns cancels it there.

        Raises:
            UnavailableError: No replica took it, or the one that did is gone.
        """

    async def count_tokens(self, given: Input) -> TokenCount | Failed:
        """Counts an input's tokens; raises as ``generate``."""

    async def model_info(self) -> ModelInfo:
        """Returns what the model can do; raises as ``generate``."""


class Piece(NamedTuple):
    """One step of an answer.

    Attributes:
        call: What is being answered.
        delta: What is new.
        usage: Figures of the whole request; on the last piece only.
    """

    call: GenerateCall
    delta: Delta
    usage: Usage | None


class GatewayService:
    """Serves calls by handing them to a replica.

    Args:
        model: Name of the served model.
        authenticator: Knows the callers.
        replicas: Where calls are run.
        max_input_bytes: Largest request message.
        requests: Records each call, however it ends.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self,
        *,
        model: str,
        authenticator: Authenticator,
        replicas: Replicas,
        max_input_bytes: int,
        requests: Requests,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._authenticator = authenticator
        self._replicas = replicas
        self._max_input_bytes = max_input_bytes
        self._requests = requests
        self._clock = clock

    async def generate(
        self,
        request: Callable[[], pb.GenerateRequest],
        metadata: Metadata,
        *,
        protocol: str,
        is_streamed: Callable[[], bool] = lambda: True,
    ) -> AsyncGenerator[Piece, None]:
        """Yields the answer as it grows.

        Args:
            request: Makes the request; called once the caller is known, and may raise ``InvalidRequestError``.
            metadata: Of the call; keys in lower case.
            protocol: ``grpc`` or ``http``.
            is_streamed: Whether the client sees the answer grow; asked after ``request``.

        Raises:
            ReasonServeError: The call is refused, or failed on the way.
            DeadlinePassedError: The client's deadline passed.
        """
        metadata = tuple(metadata)
        with self._requests.request(protocol) as record:
            patience_s = patience(metadata)
            deadline = None if patience_s is None else self._clock() + patience_s
            record.tenant_id = await self.authenticate(metadata)
            call = record.call = parse_request(
                request(),
                model=self._model,
                request_id=f"req-{uuid.uuid4().hex}",
                tenant_id=record.tenant_id,
                max_input_bytes=self._max_input_bytes,
                patience_s=patience_s,
            )
            streamed, parent = is_streamed(), Parent.current()
            call = record.call = replace(call, is_streamed=streamed, parent=parent, sent_ns=time.time_ns())
            tally = Tally(call.num_outputs)
            async with aclosing(self._replicas.generate(call)) as items:
                usage = None
                while usage is None:
                    delta = await self._next(items, deadline)
                    record.delta(delta)
                    usage = tally.add(delta)
                    record.is_complete = usage is not None
                    yield Piece(call, delta, usage)

    async def stream(
        self, request: pb.GenerateRequest, metadata: Metadata
    ) -> AsyncGenerator[pb.GenerateResponse, None]:
        """Yields the answer's messages; errors as ``generate``."""
        async with aclosing(self.generate(lambda: request, metadata, protocol="grpc")) as pieces:
            async for piece in pieces:
                yield stream_message(piece.call.request_id, piece.delta, piece.usage)

    async def answer(self, request: pb.GenerateRequest, metadata: Metadata) -> pb.GenerateResponse:
        """Returns the whole answer; errors as ``generate``."""
        pieces = self.generate(lambda: request, metadata, protocol="grpc", is_streamed=lambda: False)
        async with aclosing(pieces):
            call, outputs, usage = await whole(pieces)
        return whole_message(call.request_id, outputs, usage)

    async def count_tokens(self, request: pb.CountTokensRequest, metadata: Metadata) -> pb.CountTokensResponse:
        """Counts the tokens of an input.

        Raises:
            ReasonServeError: The call is refused, or failed on the way.
        """
        metadata = tuple(metadata)
        patience_s = patience(metadata)
        await self.authenticate(metadata)
        check_envelope(request, model=self._model, max_input_bytes=self._max_input_bytes)
        count = await self._within(patience_s, self._replicas.count_tokens(parse_input(request)))
        if isinstance(count, Failed):
            raise count.error
        return pb.CountTokensResponse(
            input_tokens=len(count.ids), token_ids=count.ids, context_length=count.context_length
        )

    async def models(self, metadata: Metadata) -> list[ModelInfo]:
        """Returns what is served; errors as ``count_tokens``."""
        metadata = tuple(metadata)
        patience_s = patience(metadata)
        await self.authenticate(metadata)
        return [await self._within(patience_s, self._replicas.model_info())]

    async def list_models(self, metadata: Metadata) -> pb.ListModelsResponse:
        """Lists what is served; errors as ``count_tokens``."""
        return pb.ListModelsResponse(models=[model_message(info) for info in await self.models(metadata)])

    async def authenticate(self, metadata: Metadata) -> str:
        """Returns the id of the tenant that calls.

        Raises:
            UnauthenticatedError: There is no key, or it is unknown.
            UnavailableError: Keys cannot be checked.
        """
        tenant_id = None
        with suppress(UnauthenticatedError):
            tenant_id = self._authenticator.verified(bearer_key(metadata))
        if tenant_id is None:
            tenant_id = await self._judged(metadata)
        trace.get_current_span().set_attribute(names.TENANT_ID, tenant_id)
        return tenant_id

    async def _judged(self, metadata: Metadata) -> str:
        """Returns what ``authenticate`` does, in a span, for the controller may have to be asked."""
        with tracer().start_as_current_span(
            names.SPAN_AUTHENTICATE, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                return await self._authenticator.tenant_of(bearer_key(metadata))
            except Exception as error:
                mark_failed(span, error)
                raise

    async def _next(self, items: AsyncIterator[Item], deadline: float | None) -> Delta:
        """Returns the next piece; an error that crossed as a value is raised."""
        left = None if deadline is None else deadline - self._clock()
        try:
            item = await self._within(left, anext(items))
        except StopAsyncIteration:
            raise UnavailableError("The replica stopped before the answer was complete; retry.") from None
        if isinstance(item, Failed):
            raise item.error
        return item

    @staticmethod
    async def _within(seconds: float | None, answer: Awaitable[Answer]) -> Answer:
        if seconds is None:
            return await answer
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            raise DeadlinePassedError from None


def patience(metadata: Metadata) -> float | None:
    """Returns how many seconds the client waits; None where it does not say.

    Raises:
        InvalidRequestError: What was sent is no positive whole number.
    """
    for name, value in metadata:
        if name == DEADLINE_KEY:
            if not (isinstance(value, str) and value.isdecimal() and int(value) > 0):
                raise InvalidRequestError(
                    f"The metadata {DEADLINE_KEY} is no positive whole number; send milliseconds or leave it out.",
                    field=DEADLINE_KEY,
                )
            return int(value) / 1000
    return None


async def whole(pieces: AsyncIterator[Piece]) -> tuple[GenerateCall, list[WholeOutput], Usage]:
    """Returns a whole answer of its pieces; raises what they do."""
    outputs: list[WholeOutput] = []
    async for piece in pieces:
        outputs = outputs or [WholeOutput() for _ in range(piece.call.num_outputs)]
        outputs[piece.delta.index].add(piece.delta)
        if piece.usage is not None:
            return piece.call, outputs, piece.usage
    raise AssertionError("pieces end with their usage")
