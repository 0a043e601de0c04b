"""From pieces of an answer to the JSON of the OpenAI-compatible API. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from reasonserve.gateway.answer import Usage, WholeOutput
from reasonserve.gateway.responses import kv_report
from reasonserve.replica.messages import Delta, Ending, ModelInfo
from reasonserve.replica.protocol import TokenChance, TokenLogprob

Json = dict[str, Any]
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """What every object of one answer repeats.

    Attributes:
        kind: Chat or plain completion.
        request_id: Names the request.
        model: Name of the served model.
        created: When it began, in seconds since 1970.
    """

    kind: Literal["chat", "completion"]
    request_id: str
    model: str
    created: int

    def head(self, *, streamed: bool) -> Json:
        """Returns the fields that do not change."""
        name = "text_completion"
        if self.kind == "chat":
            name = "chat.completion.chunk" if streamed else "chat.completion"
        return {"id": self.request_id, "object": name, "created": self.created, "model": self.model}

    def whole(self, outputs: Sequence[WholeOutput], usage: Usage) -> Json:
        """Returns the object for a whole answer."""
        choices = [self._whole_choice(index, output) for index, output in enumerate(outputs)]
        return {**self.head(streamed=False), "choices": choices, "usage": usage_json(usage)}

    def opening(self, index: int) -> Json:
        """Returns the first chunk of a chat's output, which says who speaks."""
        choice = {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        return {**self.head(streamed=True), "choices": [choice]}

    def chunk(self, delta: Delta) -> Json:
        """Returns the chunk for one piece."""
        choice: Json = {"index": delta.index, "finish_reason": None}
        if self.kind == "chat":
            said = {"content": delta.text, "reasoning_content": delta.reasoning}
            choice["delta"] = {name: text for name, text in said.items() if text}
        else:
            choice["text"] = delta.text
        self._finish(choice, delta.logprobs, delta.ending)
        return {**self.head(streamed=True), "choices": [choice]}

    def closing(self, usage: Usage) -> Json:
        """Returns the chunk that carries the usage of a stream."""
        return {**self.head(streamed=True), "choices": [], "usage": usage_json(usage)}

    def _whole_choice(self, index: int, output: WholeOutput) -> Json:
        choice: Json = {"index": index}
        if self.kind == "chat":
            choice["message"] = {"role": "assistant", "content": output.text}
            if output.reasoning:
                choice["message"]["reasoning_content"] = output.reasoning
        else:
            choice["text"] = output.text
        self._finish(choice, output.logprobs, output.ending)
        return choice

    def _finish(self, choice: Json, logprobs: Sequence[TokenLogprob], ending: Ending | None) -> None:
        if logprobs:
            choice["logprobs"] = _chat_logprobs(logprobs) if self.kind == "chat" else _text_logprobs(logprobs)
        if ending is not None:
            choice["finish_reason"] = ending.finish_reason
            choice["matched_stop"] = ending.matched_stop or None
            choice["kv"] = kv_json(ending)


def usage_json(usage: Usage) -> Json:
    """Returns token counts in OpenAI's words, and the KV figure beside them."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "peak_kv_slots": usage.peak_kv_slots,
    }


def kv_json(ending: Ending) -> Json:
    """Returns what an output's KV cache did: the contract's ``KvReport``, field by field."""
    report = kv_report(ending)
    return {field.name: getattr(report, field.name) for field in report.DESCRIPTOR.fields}


def models_json(infos: Sequence[ModelInfo], created: int) -> Json:
    """Returns the list of models."""
    return {"object": "list", "data": [model_json(info, created) for info in infos]}


def model_json(info: ModelInfo, created: int) -> Json:
    """Returns one model; figures beyond OpenAI's are under ``reasonserve``."""
    told = asdict(info)
    handshake = told.pop("handshake")
    kept = ("methods", "prompt_modes", "profile_id", "bytes_per_slot", "pool_slots")
    extra = {**told, **{name: handshake[name] for name in kept}}
    extra.pop("name")
    return {"id": info.name, "object": "model", "created": created, "owned_by": "reasonserve", "reasonserve": extra}


def _chat_logprobs(places: Sequence[TokenLogprob]) -> Json:
    def chance(token: TokenChance) -> Json:
        # A token that is part of a character has a stand-in for its text, whose bytes are not the token's.
        spelled = None if REPLACEMENT in token.text else list(token.text.encode())
        return {"token": token.text, "logprob": token.logprob, "bytes": spelled}

    return {"content": [{**chance(p.token), "top_logprobs": [chance(top) for top in p.top]} for p in places]}


def _text_logprobs(places: Sequence[TokenLogprob]) -> Json:
    return {
        "tokens": [place.token.text for place in places],
        "token_logprobs": [place.token.logprob for place in places],
        "top_logprobs": [{top.text: top.logprob for top in place.top} for place in places],
    }
