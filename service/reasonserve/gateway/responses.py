"""From pieces of an answer to the messages of the gRPC contract. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.gateway.answer import Usage, WholeOutput
from reasonserve.replica.messages import Delta, Ending, ModelInfo
from reasonserve.replica.protocol import TokenChance, TokenLogprob

_FINISH_REASONS = {"stop": pb.FINISH_REASON_STOP, "length": pb.FINISH_REASON_LENGTH}
_PROMPT_MODES = {"pinned": pb.PROMPT_MODE_PINNED, "evictable": pb.PROMPT_MODE_EVICTABLE}

Carrier = pb.GenerateResponse | pb.Output


def stream_message(request_id: str, delta: Delta, usage: Usage | None) -> pb.GenerateResponse:
    """Returns the message for one piece; the last piece brings the usage."""
    response = pb.GenerateResponse(request_id=request_id)
    carrier: Carrier = response if delta.index == 0 else response.more_outputs.add(index=delta.index)
    _fill(carrier, delta)
    carrier.progress.held_slots, carrier.progress.rounds = delta.held_slots, delta.rounds
    if usage is not None:
        response.usage.CopyFrom(_usage(usage))
    return response


def whole_message(request_id: str, outputs: Sequence[WholeOutput], usage: Usage) -> pb.GenerateResponse:
    """Returns the message for a whole answer."""
    response = pb.GenerateResponse(request_id=request_id, usage=_usage(usage))
    _fill(response, outputs[0])
    for index, output in enumerate(outputs[1:], start=1):
        _fill(response.more_outputs.add(index=index), output)
    return response


def model_message(info: ModelInfo) -> pb.Model:
    """Returns what clients are told of a model."""
    handshake = info.handshake
    return pb.Model(
        name=info.name,
        context_length=info.context_length,
        vocab_size=info.vocab_size,
        kv_methods=handshake.methods,
        prompt_modes=[_PROMPT_MODES[mode] for mode in handshake.prompt_modes],
        profile=handshake.profile_id,
        bytes_per_slot=handshake.bytes_per_slot,
        pool_slots=handshake.pool_slots,
        grammar_backend=info.grammar_backend,
        reasoning_parser=info.reasoning_parser,
        chat=info.chat,
    )


def _fill(carrier: Carrier, source: Delta | WholeOutput) -> None:
    carrier.text = source.text
    carrier.reasoning = source.reasoning
    carrier.token_ids.extend(source.token_ids)
    if source.logprobs:
        carrier.logprobs.extend(_logprobs(source.logprobs))
    if (ending := source.ending) is not None:
        carrier.finish_reason = _FINISH_REASONS[ending.finish_reason]
        carrier.matched_stop = ending.matched_stop
        carrier.kv.CopyFrom(kv_report(ending))


def _logprobs(places: Iterable[TokenLogprob]) -> list[pb.TokenLogprob]:
    def chance(token: TokenChance) -> pb.TokenChance:
        return pb.TokenChance(token_id=token.token_id, text=token.text, logprob=token.logprob)

    return [pb.TokenLogprob(token=chance(place.token), top=[chance(top) for top in place.top]) for place in places]


def _usage(usage: Usage) -> pb.Usage:
    return pb.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        peak_kv_slots=usage.peak_kv_slots,
    )


def kv_report(ending: Ending) -> pb.KvReport:
    """Returns what clients are told of an output's KV cache."""
    return pb.KvReport(
        budget_tokens=ending.budget_tokens,
        method=ending.method,
        profile=ending.profile_id,
        peak_slots=ending.peak_slots,
        rounds=ending.rounds,
        kept_cells=ending.kept_cells,
        evicted_cells=ending.evicted_cells,
        round_seconds=ending.round_seconds,
        squeezes=ending.squeezes,
        wished_budget_tokens=ending.wished_tokens,
        queued_seconds=ending.queued_s,
    )
