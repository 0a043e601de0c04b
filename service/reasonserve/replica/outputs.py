"""The outputs of one request: what the engine is asked for each, and what is made of its chunks. Pure."""

from __future__ import annotations

from dataclasses import replace

from reasonserve.replica.admission import Grant
from reasonserve.replica.messages import Delta, Ending, GenerateCall
from reasonserve.replica.protocol import ChatPrompt, EngineChunk, EngineRequest, Sampling, output_id


def engine_requests(call: GenerateCall, prompt: ChatPrompt, sampling: Sampling, grant: Grant) -> list[EngineRequest]:
    """Returns what the engine is asked, one request for each output; with a seed, output i draws with seed + i."""
    return [
        EngineRequest(
            request_id=output_id(call.request_id, index, call.num_outputs),
            input_ids=tuple(prompt.ids),
            sampling=sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + index),
            kv=grant.kv,
            cache_salt=call.tenant_id,
            is_guaranteed=grant.is_guaranteed,
            separate_reasoning=call.separate_reasoning,
            in_reasoning=prompt.in_reasoning,
        )
        for index in range(call.num_outputs)
    ]


class Progress:
    """How far the outputs of a request have come; the request is where its slowest output is.

    Args:
        num_outputs: How many there are.
    """

    def __init__(self, num_outputs: int) -> None:
        self._tokens = [0] * num_outputs
        self._rounds = [0] * num_outputs

    def update(self, index: int, chunk: EngineChunk) -> tuple[int, int]:
        """Notes an output's newest chunk; returns the request's output tokens and rounds."""
        self._tokens[index], self._rounds[index] = chunk.output_tokens, len(chunk.kv.rounds)
        return min(self._tokens), min(self._rounds)


def delta_of(chunk: EngineChunk, grant: Grant, *, index: int, profile_id: str) -> Delta:
    """Returns what goes to the gateway of an engine's chunk."""
    return Delta(
        index=index,
        text=chunk.text,
        reasoning=chunk.reasoning,
        token_ids=chunk.token_ids,
        logprobs=chunk.logprobs,
        held_slots=chunk.kv.held_slots,
        rounds=len(chunk.kv.rounds),
        ending=_ending(chunk, grant, profile_id) if chunk.finish_reason else None,
    )


def _ending(chunk: EngineChunk, grant: Grant, profile_id: str) -> Ending:
    rounds = chunk.kv.rounds
    return Ending(
        finish_reason=chunk.finish_reason,
        matched_stop=chunk.matched_stop,
        input_tokens=chunk.input_tokens,
        cached_tokens=chunk.cached_tokens,
        output_tokens=chunk.output_tokens,
        reasoning_tokens=chunk.reasoning_tokens,
        method=grant.kv.method,
        budget_tokens=grant.kv.budget_tokens,
        profile_id=profile_id,
        peak_slots=chunk.kv.peak_slots,
        rounds=len(rounds),
        kept_cells=sum(r.kept_cells for r in rounds),
        evicted_cells=sum(r.evicted_cells for r in rounds),
        round_seconds=sum(r.seconds for r in rounds),
        squeezes=chunk.kv.squeezes,
        wished_tokens=grant.wished_tokens,
        queued_s=grant.queued_s,
    )
