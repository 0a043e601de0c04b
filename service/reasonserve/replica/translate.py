"""Between the replica's words and SGLang's: sampling parameters out, output chunks in. Pure."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reasonserve.errors import InvalidRequestError, ReasonServeError, UnavailableError
from reasonserve.kv import REPORT_KEY
from reasonserve.replica.protocol import EngineChunk, EngineRequest, Grammar, TokenChance, TokenLogprob

LEAST_LOGPROB = -1e30
"""Stands for the logarithm of nothing, which JSON cannot write."""

_SOURCE_PLACE = re.compile(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ")
"""How xgrammar's messages begin: time, source file and line of its own."""


def sampling_params(request: EngineRequest) -> dict[str, Any]:
    """Returns SGLang's sampling parameters. A request without a seed gets a random one, never the engine's."""
    sampling = request.sampling
    grammar: dict[str, Any] = {} if sampling.grammar is None else {sampling.grammar.kind: sampling.grammar.text}
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "max_new_tokens": sampling.max_new_tokens,
        "min_new_tokens": sampling.min_new_tokens,
        "stop": list(sampling.stop) or None,
        "stop_token_ids": list(sampling.stop_token_ids) or None,
        "logit_bias": {str(token_id): bias for token_id, bias in sampling.logit_bias} or None,
        "ignore_eos": sampling.ignore_eos,
        "sampling_seed": secrets.randbits(62) if sampling.seed is None else sampling.seed,
        "custom_params": request.kv.to_custom_params(),
        **grammar,
    }


def engine_chunk(
    output: Mapping[str, Any], before: EngineChunk, request: EngineRequest, text_of: Callable[[int], str]
) -> EngineChunk:
    """Translates one message of SGLang's incremental stream.

    Args:
        output: The message.
        before: The chunk before.
        request: What was asked for.
        text_of: Decodes one token.

    Raises:
        InvalidRequestError: The scheduler ended the request because it cannot honour it.
        UnavailableError: The scheduler ended the request for another reason.
    """
    meta = output["meta_info"]
    reason = meta["finish_reason"] or {"type": ""}
    if reason["type"] == "abort":
        raise _abort_error(reason, request.sampling.grammar)
    counters = before.kv
    for step in meta.get(REPORT_KEY) or ():
        if step is not None:
            counters = counters.updated(step)
    return EngineChunk(
        text=output["text"],
        token_ids=tuple(output["output_ids"]),
        logprobs=_logprobs(meta, text_of) if request.sampling.top_logprobs is not None else (),
        finish_reason=reason["type"],
        matched_stop=_matched_stop(reason.get("matched"), request.sampling.stop_token_ids),
        input_tokens=meta["prompt_tokens"],
        cached_tokens=meta["cached_tokens"],
        output_tokens=meta["completion_tokens"],
        reasoning_tokens=before.reasoning_tokens,
        retractions=meta.get("num_retractions", 0),
        kv=counters,
    )


def _matched_stop(matched: int | str | None, asked_for: Sequence[int]) -> str:
    """Returns the stop string or token id that a client asked for; the model's own end of sequence is neither."""
    return str(matched) if isinstance(matched, str) or matched in asked_for else ""


def _logprobs(meta: Mapping[str, Any], text_of: Callable[[int], str]) -> tuple[TokenLogprob, ...]:
    def chance(entry: Sequence[Any]) -> TokenChance:
        return TokenChance(entry[1], text_of(entry[1]), max(entry[0], LEAST_LOGPROB))

    tokens = meta["output_token_logprobs"]
    tops = meta.get("output_top_logprobs") or [()] * len(tokens)
    return tuple(
        TokenLogprob(chance(token), tuple(chance(entry) for entry in top or ()))
        for token, top in zip(tokens, tops, strict=True)
    )


def _abort_error(reason: Mapping[str, Any], grammar: Grammar | None) -> ReasonServeError:
    message = _SOURCE_PLACE.sub("", str(reason.get("message"))).strip().rstrip(".")
    if reason.get("status_code") != 400:
        return UnavailableError(f"The engine ended the request: {message}.")
    if grammar is not None and "grammar" in message.lower():
        field = f"sampling.{grammar.kind}"
        return InvalidRequestError(f"{field} cannot be enforced: {message}. Correct it or leave it out.", field=field)
    return InvalidRequestError(f"The engine refuses the request: {message}.")
