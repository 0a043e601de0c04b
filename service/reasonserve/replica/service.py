"""What a replica does with a request: tokenize, admit, run, release. Knows nothing of Ray."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from reasonserve.errors import InvalidRequestError, ReasonServeError
from reasonserve.kv import KvRequest, needs_profile
from reasonserve.replica import spans
from reasonserve.replica.admission import Admission
from reasonserve.replica.messages import ChatInput, Delta, Ending, Failed, GenerateCall, Item, PromptInput
from reasonserve.replica.protocol import Engine, EngineChunk, EngineRequest, Sampling
from reasonserve.replica.sizing import KvAsk
from reasonserve.status import INTERNAL_MESSAGE

logger = logging.getLogger(__name__)


class ReplicaService:
    """Serves requests on one engine under one ledger.

    Args:
        engine: The engine.
        admission: The ledger.
        model: Name of the served model.
        use_changed: Called after each admission, refusal and release.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        admission: Admission,
        model: str,
        use_changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._admission = admission
        self._model = model
        self._use_changed = use_changed
        self._clock = clock

    async def generate(self, call: GenerateCall) -> AsyncGenerator[Item, None]:
        """Yields the output as it grows; an error is the last item, not an exception.

        However it ends (finish, error, cancel, lost client) the engine has stopped and the reservation is released.
        """
        try:
            input_ids = self._encode(call)
            sampling = self._fit_context(call.sampling, prompt_tokens=len(input_ids))
            kv = self._admit(call, prompt_tokens=len(input_ids), max_new_tokens=sampling.max_new_tokens)
            request = EngineRequest(
                request_id=call.request_id, input_ids=input_ids, sampling=sampling, kv=kv, cache_salt=call.tenant_id
            )
            async with aclosing(self._run(call, request)) as items:
                async for item in items:
                    yield item
        except ReasonServeError as error:
            yield Failed(error=error)
        except Exception:
            logger.exception("Request %s failed for a reason that nobody foresaw.", call.request_id)
            yield Failed(error=ReasonServeError(INTERNAL_MESSAGE))
        finally:
            if self._admission.release(call.request_id):
                self._use_changed()

    async def _run(self, call: GenerateCall, request: EngineRequest) -> AsyncGenerator[Item, None]:
        """Runs an admitted request under the engine's span."""
        with spans.inference(call, request, model=self._model) as span:
            async with aclosing(self._engine.generate(request)) as chunks:
                async for chunk in chunks:
                    self._admission.progress(call.request_id, chunk.output_tokens, now=self._clock())
                    span.record(chunk, profile_id=self._profile_of(request.kv))
                    yield self._delta(chunk, request.kv)

    def _encode(self, call: GenerateCall) -> tuple[int, ...]:
        """Returns the prompt's token ids.

        Raises:
            InvalidRequestError: The input has no tokens, or one outside the vocabulary.
        """
        if isinstance(call.input, PromptInput):
            return self._some(self._engine.encode(call.input.text), "prompt")
        if isinstance(call.input, ChatInput):
            messages = [{"role": role, "content": content} for role, content in call.input.messages]
            return self._some(self._engine.encode_chat(messages, {}).ids, "chat")
        for index, token_id in enumerate(call.input.ids):
            if not 0 <= token_id < self._engine.vocab_size:
                field = f"tokens.ids[{index}]"
                raise InvalidRequestError(
                    f"{field} is {token_id}; token ids of {self._model} lie in [0, {self._engine.vocab_size}).",
                    field=field,
                )
        return call.input.ids

    @staticmethod
    def _some(ids: list[int], field: str) -> tuple[int, ...]:
        if not ids:
            raise InvalidRequestError(f"{field} has no tokens; send at least one.", field=field)
        return tuple(ids)

    def _fit_context(self, sampling: Sampling, *, prompt_tokens: int) -> Sampling:
        """Ends generation at the model's context length, which a client sees as finish reason LENGTH.

        Raises:
            InvalidRequestError: The prompt leaves no room for a single new token.
        """
        room = self._engine.context_length - prompt_tokens
        if room < 1:
            raise InvalidRequestError(
                f"The input has {prompt_tokens} tokens; {self._model} takes {self._engine.context_length} of input and "
                "output together. Shorten the input.",
                field="input",
            )
        return replace(sampling, max_new_tokens=min(sampling.max_new_tokens, room))

    def _admit(self, call: GenerateCall, *, prompt_tokens: int, max_new_tokens: int) -> KvRequest:
        """Reserves the request's slots; errors as ``Admission.admit``, and for a method the engine lacks."""
        with spans.admission(call) as span:
            self._check_offered(call.kv)
            try:
                kv = self._admission.admit(
                    call.request_id,
                    call.tenant_id,
                    call.kv,
                    prompt_tokens=prompt_tokens,
                    max_new_tokens=max_new_tokens,
                    now=self._clock(),
                )
            finally:
                self._use_changed()
            spans.record_reservation(span, kv, prompt_tokens=prompt_tokens, max_new_tokens=max_new_tokens)
            return kv

    def _check_offered(self, ask: KvAsk) -> None:
        """Refuses what this engine said at start-up it cannot honour.

        Raises:
            InvalidRequestError: The method or the prompt mode is not offered.
        """
        handshake = self._engine.handshake
        if needs_profile(ask.method) and not handshake.profile_id:
            raise InvalidRequestError(
                f"kv.method is {ask.method!r}, which needs a layer profile of the model, and none is active; this "
                f"engine offers {', '.join(handshake.methods)}. Use one of these, or activate a profile.",
                field="kv.method",
            )
        if ask.prompt_mode not in handshake.prompt_modes:
            raise InvalidRequestError(
                f"kv.prompt_mode is {ask.prompt_mode!r}; this engine offers {', '.join(handshake.prompt_modes)}.",
                field="kv.prompt_mode",
            )

    def _profile_of(self, kv: KvRequest) -> str:
        return self._engine.handshake.profile_id if needs_profile(kv.method) else ""

    def _delta(self, chunk: EngineChunk, kv: KvRequest) -> Delta:
        rounds = chunk.kv.rounds
        ending = None
        if chunk.finish_reason:
            ending = Ending(
                finish_reason=chunk.finish_reason,
                input_tokens=chunk.input_tokens,
                cached_tokens=chunk.cached_tokens,
                output_tokens=chunk.output_tokens,
                method=kv.method,
                budget_tokens=kv.budget_tokens,
                profile_id=self._profile_of(kv),
                peak_slots=chunk.kv.peak_slots,
                rounds=len(rounds),
                kept_cells=sum(r.kept_cells for r in rounds),
                evicted_cells=sum(r.evicted_cells for r in rounds),
                round_seconds=sum(r.seconds for r in rounds),
                squeezes=chunk.kv.squeezes,
            )
        return Delta(
            text=chunk.text,
            token_ids=chunk.token_ids,
            held_slots=chunk.kv.held_slots,
            rounds=len(rounds),
            ending=ending,
        )
