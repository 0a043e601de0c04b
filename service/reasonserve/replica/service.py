"""What a replica does with a request: tokenize, admit, run, release. Knows nothing of Ray."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from reasonserve.errors import ReasonServeError
from reasonserve.kv import needs_profile
from reasonserve.replica import spans
from reasonserve.replica.admission import Entry, Grant
from reasonserve.replica.coalesce import Coalescer
from reasonserve.replica.desk import Desk
from reasonserve.replica.figures import Figures
from reasonserve.replica.intake import Intake
from reasonserve.replica.merge import merged
from reasonserve.replica.messages import Delta, Failed, GenerateCall, Input, Item, ModelInfo, TokenCount
from reasonserve.replica.outputs import Progress, delta_of, engine_requests
from reasonserve.replica.protocol import ChatPrompt, Engine, EngineRequest, Sampling
from reasonserve.replica.watch import EngineWatch
from reasonserve.status import INTERNAL_MESSAGE

UNSEEN_DELAY_S = 1.0
"""How long new tokens of an answer that its client awaits whole may wait for the next ones."""

logger = logging.getLogger(__name__)


class ReplicaService:
    """Serves requests on one engine.

    Args:
        engine: The engine.
        desk: Who is admitted.
        watch: Whether the engine lives.
        model: Name of the served model.
        chunk_delay_s: New tokens wait at most this long for the next ones, to share a message.
        figures: Counts what happens.
        records_content: Prompts and answers go into spans.
        replica_id: What spans call this replica.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        desk: Desk,
        watch: EngineWatch,
        model: str,
        chunk_delay_s: float = 0.0,
        figures: Figures,
        records_content: bool = False,
        replica_id: str = "",
    ) -> None:
        self._engine = engine
        self._intake = Intake(engine, model)
        self._chunk_delay_s = chunk_delay_s
        self._desk = desk
        self._watch = watch
        self._figures = figures
        self._routed = partial(spans.routed, replica_id=replica_id)
        self._admission = partial(spans.admission, replica_id=replica_id)
        self._inference = partial(spans.inference, model=model, records_content=records_content, replica_id=replica_id)

    async def generate(self, call: GenerateCall) -> AsyncGenerator[Item, None]:
        """Yields the output as it grows; an error is the last item, not an exception.

        However it ends (finish, error, cancel, lost client) the engine has stopped and the reservation is released.
        """
        try:
            with self._routed(call):
                async with aclosing(self._serve(call)) as items:
                    async for item in items:
                        yield item
        except ReasonServeError as error:
            yield Failed(error=error)
        except Exception:
            with spans.within(call):
                logger.exception("Request %s failed for a reason that nobody foresaw.", call.request_id)
            yield Failed(error=ReasonServeError(INTERNAL_MESSAGE))

    async def _serve(self, call: GenerateCall) -> AsyncGenerator[Item, None]:
        """Admits a request, runs it and gives back what it reserved, whichever way it ends."""
        try:
            prompt = self._intake.encode(call.input)
            sampling = self._intake.fit(call, prompt_tokens=len(prompt.ids))
            grant = await self._admit(call, prompt, sampling)
            progress = Progress(call.num_outputs)
            requests = engine_requests(call, prompt, sampling, grant)
            outputs = [self._output(call, request, grant, i, progress) for i, request in enumerate(requests)]
            delay_s = self._chunk_delay_s if call.is_streamed else UNSEEN_DELAY_S
            async with aclosing(merged(outputs, Coalescer(delay_s))) as items:
                async for item in items:
                    yield item
        finally:
            self._desk.leave(call.request_id)

    async def _output(
        self, call: GenerateCall, request: EngineRequest, grant: Grant, index: int, progress: Progress
    ) -> AsyncGenerator[Delta, None]:
        """Runs one output of an admitted request under the engine's span."""
        profile_id = self._engine.handshake.profile_id if needs_profile(grant.kv.method) else ""
        figures = self._figures.output(call.tenant_id, grant.kv.method)
        with self._inference(call, request) as span:
            async with aclosing(self._engine.generate(request)) as chunks:
                while True:
                    with self._watch.guard():
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        return
                    self._desk.progress(call.request_id, *progress.update(index, chunk))
                    span.record(chunk, profile_id=profile_id)
                    figures.record(chunk.kv)
                    yield delta_of(chunk, grant, index=index, profile_id=profile_id)

    def count_tokens(self, given: Input) -> TokenCount | Failed:
        """Returns an input's token ids; an error is returned, not raised."""
        try:
            prompt = self._intake.encode(given)
        except ReasonServeError as error:
            return Failed(error=error)
        return TokenCount(ids=tuple(prompt.ids), context_length=self._engine.context_length)

    def model_info(self) -> ModelInfo:
        """Returns what the model can do."""
        return self._intake.model_info()

    async def _admit(self, call: GenerateCall, prompt: ChatPrompt, sampling: Sampling) -> Grant:
        """Reserves the slots of all outputs; errors as ``Desk.enter``."""
        with self._figures.admission(call.tenant_id) as admitted, self._admission(call) as span:
            entry = Entry(
                request_id=call.request_id,
                tenant_id=call.tenant_id,
                ask=call.kv,
                prompt_ids=prompt.ids,
                max_new_tokens=sampling.max_new_tokens,
                outputs=call.num_outputs,
                patience_s=call.patience_s,
            )
            grant = await self._desk.enter(entry)
            spans.record_grant(span, grant)
            admitted(grant)
            return grant
