"""What the gateway does with a call: who is calling, what is asked, run it, answer. Knows nothing of Ray."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from opentelemetry import trace

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.errors import InvalidRequestError, UnavailableError
from reasonserve.gateway.auth import Authenticator, Metadata, bearer_key
from reasonserve.gateway.errors import DeadlinePassedError
from reasonserve.gateway.observe import Requests
from reasonserve.gateway.validate import parse_request
from reasonserve.replica.messages import Delta, Ending, Failed, GenerateCall, Item
from reasonserve.telemetry import names
from reasonserve.telemetry.tracing import mark_failed

DEADLINE_KEY = "x-deadline-ms"
"""Metadata: milliseconds that the client waits. Ray Serve hides gRPC's own deadline from handlers; when that one
passes, the call is cancelled."""

_FINISH_REASONS = {"stop": pb.FINISH_REASON_STOP, "length": pb.FINISH_REASON_LENGTH}


class GatewayService:
    """Serves calls by handing them to a replica.

    Args:
        model: Name of the served model.
        authenticator: Knows the callers.
        call_replica: Runs a call on some replica; closing what it returns cancels it there.
        max_input_bytes: Largest request message.
        requests: Records each call, however it ends.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self,
        *,
        model: str,
        authenticator: Authenticator,
        call_replica: Callable[[GenerateCall], AsyncGenerator[Item, None]],
        max_input_bytes: int,
        requests: Requests,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._authenticator = authenticator
        self._call_replica = call_replica
        self._max_input_bytes = max_input_bytes
        self._requests = requests
        self._clock = clock

    async def stream(
        self, request: pb.GenerateRequest, metadata: Metadata
    ) -> AsyncGenerator[pb.GenerateResponse, None]:
        """Yields the answer as it grows.

        Raises:
            ReasonServeError: The call is refused, or failed on the way.
            DeadlinePassedError: The client's deadline passed.
        """
        metadata = tuple(metadata)
        with self._requests.request("grpc") as record:
            deadline = self._deadline(metadata)
            record.tenant_id = await self._authenticate(metadata)
            call = record.call = parse_request(
                request,
                model=self._model,
                request_id=f"req-{uuid.uuid4().hex}",
                tenant_id=record.tenant_id,
                max_input_bytes=self._max_input_bytes,
            )
            async with aclosing(self._call_replica(call)) as items:
                async for delta in self._deltas(items, deadline):
                    record.delta(delta)
                    yield _stream_response(call.request_id, delta)

    async def answer(self, request: pb.GenerateRequest, metadata: Metadata) -> pb.GenerateResponse:
        """Returns the whole answer; errors as ``stream``."""
        whole = pb.GenerateResponse()
        async with aclosing(self.stream(request, metadata)) as parts:
            async for part in parts:
                text = whole.text + part.text
                whole.MergeFrom(part)  # appends token ids, takes over what the last part alone carries
                whole.text = text
        whole.ClearField("progress")
        return whole

    async def _authenticate(self, metadata: Metadata) -> str:
        with trace.get_tracer(names.TRACER).start_as_current_span(
            names.SPAN_AUTHENTICATE, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                tenant_id = await self._authenticator.tenant_of(bearer_key(metadata))
            except Exception as error:
                mark_failed(span, error)
                raise
            span.set_attribute(names.TENANT_ID, tenant_id)
            return tenant_id

    def _deadline(self, metadata: Metadata) -> float | None:
        """Returns when the client stops waiting, on the service's clock.

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
                return self._clock() + int(value) / 1000
        return None

    async def _deltas(self, items: AsyncIterator[Item], deadline: float | None) -> AsyncIterator[Delta]:
        """Yields deltas up to the one that ends the answer; an error that crossed as a value is raised."""
        while True:
            left = None if deadline is None else deadline - self._clock()
            try:
                item = await asyncio.wait_for(anext(items), left)
            except TimeoutError:
                raise DeadlinePassedError from None
            except StopAsyncIteration:
                raise UnavailableError("The replica stopped before the answer was complete; retry.") from None
            if isinstance(item, Failed):
                raise item.error
            yield item
            if item.ending is not None:
                return


def _stream_response(request_id: str, delta: Delta) -> pb.GenerateResponse:
    response = pb.GenerateResponse(
        request_id=request_id,
        text=delta.text,
        token_ids=delta.token_ids,
        progress=pb.KvProgress(held_slots=delta.held_slots, rounds=delta.rounds),
    )
    if delta.ending is not None:
        _add_ending(response, delta.ending)
    return response


def _add_ending(response: pb.GenerateResponse, ending: Ending) -> None:
    response.finish_reason = _FINISH_REASONS[ending.finish_reason]
    response.usage.CopyFrom(
        pb.Usage(
            input_tokens=ending.input_tokens,
            output_tokens=ending.output_tokens,
            cached_tokens=ending.cached_tokens,
        )
    )
    response.kv.CopyFrom(
        pb.KvReport(
            budget_tokens=ending.budget_tokens,
            method=ending.method,
            profile=ending.profile_id,
            peak_slots=ending.peak_slots,
            rounds=ending.rounds,
            kept_cells=ending.kept_cells,
            evicted_cells=ending.evicted_cells,
            round_seconds=ending.round_seconds,
            squeezes=ending.squeezes,
        )
    )
