"""What crosses the handle between gateway and replica: plain, picklable data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reasonserve.errors import ReasonServeError
from reasonserve.kv import Handshake
from reasonserve.replica.protocol import Sampling, TokenLogprob
from reasonserve.replica.sizing import KvAsk
from reasonserve.telemetry.tracing import Parent


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptInput:
    """Raw text."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatInput:
    """Messages, oldest first, as (role, content), and variables for the chat template."""

    messages: tuple[tuple[str, str], ...]
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokensInput:
    """Token ids, not yet held against the vocabulary."""

    ids: tuple[int, ...]


Input = PromptInput | ChatInput | TokensInput


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateCall:
    """A request whose caller is known and whose fields are checked as far as that needs no model.

    Attributes:
        request_id: Unique over the cluster.
        tenant_id: Who pays.
        input: The prompt.
        sampling: Sampling options.
        kv: What it asks of its KV cache.
        patience_s: How long the client waits from now; None is as long as it takes.
        attempt: 1 on the second try, which goes to another replica.
        is_streamed: Whether the client sees the answer grow; parts that it awaits whole may be made a second time.
        num_outputs: Outputs for the same input, each with a KV cache of its own; with a seed, output i draws with
            seed + i.
        separate_reasoning: Whether reasoning comes apart from the answer, where the engine can tell.
        parent: The span that it runs under; None where there is none.
        sent_ns: When it was sent to a replica, in Unix nanoseconds.
    """

    request_id: str
    tenant_id: str
    input: Input
    sampling: Sampling
    kv: KvAsk
    patience_s: float | None = None
    attempt: int = 0
    is_streamed: bool = True
    num_outputs: int = 1
    separate_reasoning: bool = True
    parent: Parent | None = None
    sent_ns: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """The figures of a finished output.

    Attributes:
        finish_reason: "stop" or "length".
        input_tokens: Tokens of the prompt.
        cached_tokens: Prompt tokens found in the prefix cache.
        output_tokens: Tokens generated.
        reasoning_tokens: Those of them that are reasoning.
        matched_stop: Stop string or stop token id that ended it; empty for any other end.
        method: Method in force.
        budget_tokens: Budget in force; 0 for ``full``.
        profile_id: Layer profile in force; empty when the method uses none.
        peak_slots: Most private slots held at once.
        rounds: Rounds.
        kept_cells: Cells kept, summed over the rounds.
        evicted_cells: Cells evicted, summed over the rounds.
        round_seconds: Seconds spent in the rounds.
        squeezes: How often the budget was lowered while the request ran.
        wished_tokens: Budget that it would have got with room enough; more than ``budget_tokens`` where it was shrunk.
        queued_s: Seconds that it waited for room.
    """

    finish_reason: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    method: str
    budget_tokens: int
    profile_id: str
    peak_slots: int
    rounds: int
    kept_cells: int
    evicted_cells: int
    round_seconds: float
    squeezes: int = 0
    wished_tokens: int = 0
    queued_s: float = 0.0
    reasoning_tokens: int = 0
    matched_stop: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """New output.

    Attributes:
        index: Which output of the request it belongs to.
        text: New text.
        reasoning: New text before the answer, where reasoning is separated.
        token_ids: New token ids.
        logprobs: One for each new token, if asked for.
        held_slots: Private slots held now.
        rounds: Rounds so far.
        ending: On the last one only.
    """

    text: str
    token_ids: tuple[int, ...]
    held_slots: int
    rounds: int
    index: int = 0
    reasoning: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    ending: Ending | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The request failed. Errors cross as values: Ray would wrap an exception in its traceback."""

    error: ReasonServeError


Item = Delta | Failed


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCount:
    """An input as ``GenerateCall`` would see it.

    Attributes:
        ids: Its token ids.
        context_length: Most tokens of input and output together.
    """

    ids: tuple[int, ...]
    context_length: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """What a replica's model can do.

    Attributes:
        name: Name of the served model.
        context_length: Most tokens of input and output together.
        vocab_size: Token ids lie in [0, vocab_size).
        handshake: What the engine's scheduler said at start-up.
        grammar_backend: What enforces grammars; empty when nothing does.
        reasoning_parser: What separates reasoning from the answer; empty when nothing does.
        chat: Whether the model has a chat template.
    """

    name: str
    context_length: int
    vocab_size: int
    handshake: Handshake
    grammar_backend: str
    reasoning_parser: str
    chat: bool
