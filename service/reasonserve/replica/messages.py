"""What crosses the handle between gateway and replica: plain, picklable data."""

from __future__ import annotations

from dataclasses import dataclass

from reasonserve.errors import ReasonServeError
from reasonserve.replica.protocol import Sampling
from reasonserve.replica.sizing import KvAsk


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptInput:
    """Raw text."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatInput:
    """Messages, oldest first, as (role, content)."""

    messages: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokensInput:
    """Token ids, not yet held against the vocabulary."""

    ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateCall:
    """A request whose caller is known and whose fields are checked as far as that needs no model.

    Attributes:
        request_id: Unique over the cluster.
        tenant_id: Who pays.
        input: The prompt.
        sampling: Sampling options.
        kv: What it asks of its KV cache.
    """

    request_id: str
    tenant_id: str
    input: PromptInput | ChatInput | TokensInput
    sampling: Sampling
    kv: KvAsk


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """The figures of a finished request.

    Attributes:
        finish_reason: "stop" or "length".
        input_tokens: Tokens of the prompt.
        cached_tokens: Prompt tokens found in the prefix cache.
        output_tokens: Tokens generated.
        method: Method in force.
        budget_tokens: Budget in force; 0 for ``full``.
        profile_id: Layer profile in force; empty when the method uses none.
        peak_slots: Most private slots held at once.
        rounds: Rounds.
        kept_cells: Cells kept, summed over the rounds.
        evicted_cells: Cells evicted, summed over the rounds.
        round_seconds: Seconds spent in the rounds.
        squeezes: How often the budget was lowered while the request ran.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """New output.

    Attributes:
        text: New text.
        token_ids: New token ids.
        held_slots: Private slots held now.
        rounds: Rounds so far.
        ending: On the last one only.
    """

    text: str
    token_ids: tuple[int, ...]
    held_slots: int
    rounds: int
    ending: Ending | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The request failed. Errors cross as values: Ray would wrap an exception in its traceback."""

    error: ReasonServeError


Item = Delta | Failed
