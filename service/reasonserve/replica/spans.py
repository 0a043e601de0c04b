"""The replica's spans: admission, and the engine's with one event per compression round."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, SpanKind

from reasonserve.errors import BudgetExhaustedError
from reasonserve.kv import RoundEvent
from reasonserve.replica.admission import Grant
from reasonserve.replica.messages import ChatInput, GenerateCall, Input, PromptInput
from reasonserve.replica.protocol import EngineChunk, EngineRequest
from reasonserve.telemetry import names
from reasonserve.telemetry.tracing import mark_failed, tracer


def _context(call: GenerateCall) -> Context:
    return call.parent.context() if call.parent is not None else Context()


@contextmanager
def routed(call: GenerateCall, *, replica_id: str = "") -> Iterator[None]:
    """Makes the span of a call's way from the gateway once its body, which handles the call, has ended."""
    came_ns = time.time_ns()
    try:
        yield
    finally:
        attributes: dict[str, str | int] = {names.REPLICA_ID: replica_id, names.ATTEMPT: call.attempt}
        # Another machine's clock may be behind or ahead of the gateway's.
        began_ns = min(call.sent_ns or came_ns, came_ns)
        span = tracer().start_span(names.SPAN_ROUTE, context=_context(call), attributes=attributes, start_time=began_ns)
        span.end(came_ns)


@contextmanager
def within(call: GenerateCall) -> Iterator[None]:
    """Runs its body, which must not yield to a caller, in the trace of a call: for what it logs."""
    token = attach(_context(call))
    try:
        yield
    finally:
        detach(token)


@contextmanager
def admission(call: GenerateCall, *, replica_id: str = "") -> Iterator[Span]:
    """Runs its body in the admission span; a refusal is marked with its class and wait."""
    attributes: dict[str, str | int] = {
        names.REQUEST_ID: call.request_id,
        names.TENANT_ID: call.tenant_id,
        names.KV_METHOD: call.kv.method,
        names.ATTEMPT: call.attempt,
        names.REPLICA_ID: replica_id,
    }
    with tracer().start_as_current_span(
        names.SPAN_ADMISSION,
        context=_context(call),
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except Exception as error:
            mark_failed(span, error)
            if isinstance(error, BudgetExhaustedError):
                span.set_attribute(names.RETRY_AFTER_S, error.retry_after_s)
            raise


def record_grant(span: Span, grant: Grant) -> None:
    """Notes what admission decided."""
    span.set_attributes(
        {
            names.KV_BUDGET_TOKENS: grant.kv.budget_tokens,
            names.KV_WISHED_TOKENS: grant.wished_tokens,
            names.KV_RESERVED_SLOTS: grant.slots,
            names.QUEUED_S: grant.queued_s,
        }
    )
    if grant.queued_s > 0:
        span.add_event(names.EVENT_QUEUED, {names.QUEUED_S: grant.queued_s})
    if grant.kv.budget_tokens < grant.wished_tokens:
        budgets = {names.KV_WISHED_TOKENS: grant.wished_tokens, names.KV_BUDGET_TOKENS: grant.kv.budget_tokens}
        span.add_event(names.EVENT_SHRUNK, budgets)


class InferenceSpan:
    """The engine's span of one request.

    Args:
        span: Where figures go.
        keeps_text: The answer goes there too.
    """

    def __init__(self, span: Span, *, keeps_text: bool = False) -> None:
        self._span = span
        self._text: list[str] | None = [] if keeps_text else None
        self._rounds = 0
        self._squeezes = 0
        self._phases = _Phases(span)

    def record(self, chunk: EngineChunk, *, profile_id: str) -> None:
        """Adds an event for each new round and squeeze and, on the last chunk, the request's figures."""
        self._phases.advance(chunk)
        if self._text is not None:
            self._text.append(chunk.text)
        for event in chunk.kv.rounds[self._rounds :]:
            self._span.add_event(names.EVENT_ROUND, _round_attributes(event), int(event.unix_time_s * 1e9))
        self._rounds = len(chunk.kv.rounds)
        if chunk.kv.squeezes > self._squeezes:
            self._span.add_event(names.EVENT_SQUEEZED, {names.KV_HELD_SLOTS: chunk.kv.held_slots})
            self._squeezes = chunk.kv.squeezes
        if chunk.finish_reason:
            self._span.set_attributes(
                {
                    names.INPUT_TOKENS: chunk.input_tokens,
                    names.OUTPUT_TOKENS: chunk.output_tokens,
                    names.CACHED_TOKENS: chunk.cached_tokens,
                    names.FINISH_REASONS: (chunk.finish_reason,),
                    names.KV_PEAK_SLOTS: chunk.kv.peak_slots,
                    names.KV_ROUNDS: self._rounds,
                    names.KV_SQUEEZES: chunk.kv.squeezes,
                    names.KV_PROFILE: profile_id,
                }
            )
            if self._text is not None:
                answer = [("assistant", "".join(self._text))]
                self._span.set_attribute(names.OUTPUT_MESSAGES, _messages(answer, finish_reason=chunk.finish_reason))

    def end(self) -> None:
        """Ends the span and the phase it is in."""
        self._phases.end()
        self._span.end()


class _Phases:
    """The spans below the engine's: queue until the scheduler ran it, prefill until the first token, decode.

    They are made at the end, from the times when they began: a request's first token does not wait for them.
    """

    def __init__(self, span: Span) -> None:
        self._span = span
        self._began_ns = time.time_ns()
        self._ran_ns = 0
        self._first_token_ns = 0

    def advance(self, chunk: EngineChunk) -> None:
        """Moves on with the first token."""
        if self._first_token_ns or not chunk.output_tokens:
            return
        self._first_token_ns = now_ns = time.time_ns()
        # Another process's clock reading: kept inside the span whatever it says.
        self._ran_ns = min(max(int(chunk.kv.scheduled_unix_s * 1e9), self._began_ns), now_ns)
        self._span.set_attribute(names.TIME_TO_FIRST_CHUNK, (now_ns - self._began_ns) / 1e9)

    def end(self) -> None:
        """Makes the phases; the last one ends now."""
        now_ns = time.time_ns()
        phases = [(names.SPAN_ENGINE_QUEUE, self._began_ns, self._ran_ns or now_ns)]
        if self._first_token_ns:
            phases += [
                (names.SPAN_ENGINE_PREFILL, self._ran_ns, self._first_token_ns),
                (names.SPAN_ENGINE_DECODE, self._first_token_ns, now_ns),
            ]
        context = trace.set_span_in_context(self._span)
        for name, from_ns, to_ns in phases:
            tracer().start_span(name, context=context, start_time=from_ns).end(to_ns)


@contextmanager
def inference(
    call: GenerateCall, request: EngineRequest, *, model: str, records_content: bool = False, replica_id: str = ""
) -> Iterator[InferenceSpan]:
    """Runs its body under the engine's span.

    The span is not made current: the body is an async generator, and its caller's context must not change
    between two chunks.
    """
    operation = names.OPERATION_CHAT if isinstance(call.input, ChatInput) else names.OPERATION_COMPLETION
    span = tracer().start_span(
        names.inference_span_name(operation, model),
        context=_context(call),
        kind=SpanKind.CLIENT,
        attributes=_request_attributes(call, request, operation, model) | {names.REPLICA_ID: replica_id},
    )
    if records_content:
        span.set_attribute(names.INPUT_MESSAGES, input_messages(call.input))
    inference_span = InferenceSpan(span, keeps_text=records_content)
    try:
        yield inference_span
    except BaseException as error:  # a cancelled request ends its span as well
        mark_failed(span, error)
        raise
    finally:
        inference_span.end()


def _request_attributes(
    call: GenerateCall, request: EngineRequest, operation: str, model: str
) -> dict[str, str | int | float]:
    sampling = request.sampling
    given = {
        names.REQUEST_SEED: sampling.seed,
        names.REQUEST_TOP_K: sampling.top_k if sampling.top_k > 0 else None,
        names.REQUEST_FREQUENCY_PENALTY: sampling.frequency_penalty or None,
        names.REQUEST_PRESENCE_PENALTY: sampling.presence_penalty or None,
        names.REQUEST_CHOICE_COUNT: call.num_outputs if call.num_outputs > 1 else None,
    }
    return {
        names.OPERATION: operation,
        names.PROVIDER: names.PROVIDER_NAME,
        names.REQUEST_MODEL: model,
        names.RESPONSE_MODEL: model,
        names.RESPONSE_ID: call.request_id,
        names.REQUEST_MAX_TOKENS: sampling.max_new_tokens,
        names.REQUEST_TEMPERATURE: sampling.temperature,
        names.REQUEST_TOP_P: sampling.top_p,
        names.REQUEST_ID: call.request_id,
        names.TENANT_ID: call.tenant_id,
        names.KV_METHOD: request.kv.method,
        names.KV_BUDGET_TOKENS: request.kv.budget_tokens,
        names.KV_PROMPT_MODE: request.kv.prompt_mode,
        **{name: value for name, value in given.items() if value is not None},
    }


def input_messages(given: Input) -> str:
    """Returns an input as the conventions' JSON of messages; token ids have no text."""
    if isinstance(given, ChatInput):
        return _messages(given.messages)
    return _messages([("user", given.text)] if isinstance(given, PromptInput) else [])


def _messages(messages: Sequence[tuple[str, str]], **more: str) -> str:
    return json.dumps(
        [{"role": role, "parts": [{"type": "text", "content": text}]} | more for role, text in messages],
        ensure_ascii=False,
    )


def _round_attributes(event: RoundEvent) -> dict[str, int | float | tuple[float, ...]]:
    return {
        names.ROUND_OUTPUT_TOKENS: event.output_tokens,
        names.ROUND_KEPT_CELLS: event.kept_cells,
        names.ROUND_EVICTED_CELLS: event.evicted_cells,
        names.ROUND_SECONDS: event.seconds,
        names.ROUND_LAYER_BUDGETS: event.layer_budgets,
        names.ROUND_HEAD_MIN: event.head_min,
        names.ROUND_HEAD_MAX: event.head_max,
    }
