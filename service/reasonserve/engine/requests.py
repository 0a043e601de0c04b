"""What the engine knows of one request's KV memory, and when it may be compressed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reasonserve.kv import (
    CUSTOM_PARAMS_KEY,
    MIN_BUDGET_TOKENS,
    PROMPT_MODES,
    KvRequest,
    RoundEvent,
    check_prompt_mode,
    clamp_budget,
    triple_of,
)

if TYPE_CHECKING:
    import torch


def parse_kv_request(custom_params: Mapping[str, Any] | None) -> KvRequest | None:
    """Reads a request's KV options.

    Returns:
        The options, or None where the request carries none (SGLang's own probes).

    Raises:
        ValueError: The options cannot be honoured; says which and what is allowed.
    """
    data = (custom_params or {}).get(CUSTOM_PARAMS_KEY)
    if data is None:
        return None
    try:
        request = KvRequest(**data)
    except TypeError as error:
        raise ValueError(f"The KV options {sorted(data)} are not those of this engine; restart the replica.") from error
    triple_of(request.method)
    if request.prompt_mode not in PROMPT_MODES:
        raise ValueError(f"kv.prompt_mode is {request.prompt_mode!r}; allowed: {', '.join(PROMPT_MODES)}.")
    check_prompt_mode(request.method, request.prompt_mode)
    if request.method != "full" and request.budget_tokens < MIN_BUDGET_TOKENS:
        raise ValueError(f"kv.budget_tokens is {request.budget_tokens}; allowed: {MIN_BUDGET_TOKENS} or more.")
    return request


@dataclass(slots=True)
class RequestState:
    """One request's KV memory. Owned by ``Compressor``; lives as long as SGLang's request object.

    The request's row in ``req_to_token`` is ``[P pinned | S owned | T tail]`` once a round ran, and
    dense before. P is the prompt's length; an evictable prompt is held until the first round, which comes as
    soon as prompt and output fill S + T, takes the prompt's tokens as candidates and ends with P = 0.

    Attributes:
        kv: The request's options.
        prompt_tokens: Length of the prompt.
        asked_tokens: S that the caller wants now, at most the one that the request was admitted with.
        budget_tokens: S in force, lower than ``asked_tokens`` where the pool ran short.
        owned_slots: S of the last round; 0 before the first one.
        squeezing: Whether the next round runs as soon as it can, because the budget was lowered.
        pinned_slots: P.
        shared_slots: Slots at the row's start that the prefix cache lent; -1 until a prefill is laid out.
        table_row: Row in the cell tables; -1 before the first round and after release.
        window_row: Row in the query windows; -1 while none is held.
        window_start: Length of the request's row when its window was taken; queries are captured from there on.
        released_slots: Slots given back over all rounds: how far the row's length lies behind the true position.
        peak_slots: Most private slots held at once.
        squeezes: How often the budget was lowered while the request ran.
        statistic_LHK: The scorer's running statistic of the owned cells, in the order of the cell table; None before
            the first round and where the scorer has none.
        event: The round that ran since the last token, until it is attached to the next one.
    """

    kv: KvRequest
    prompt_tokens: int
    asked_tokens: int = 0
    budget_tokens: int = 0
    owned_slots: int = 0
    squeezing: bool = False
    pinned_slots: int = -1
    shared_slots: int = -1
    table_row: int = -1
    window_row: int = -1
    window_start: int = 0
    released_slots: int = 0
    peak_slots: int = 0
    squeezes: int = 0
    statistic_LHK: torch.Tensor | None = None
    event: RoundEvent | None = None

    def __post_init__(self) -> None:
        self.asked_tokens = self.kv.budget_tokens
        self.reset()

    def reset(self) -> None:
        """Forgets what belonged to the row that SGLang took back; a retracted request starts over from here."""
        self.pinned_slots = self.prompt_tokens
        self.shared_slots = self.table_row = self.window_row = -1
        self.released_slots = self.owned_slots = 0
        self.budget_tokens = self.asked_tokens
        self.squeezing = False
        self.statistic_LHK = None

    def ask(self, budget_tokens: int) -> None:
        """Sets the budget that the caller wants, moved into the range that the request may have."""
        self.asked_tokens = clamp_budget(budget_tokens, admitted=self.kv.budget_tokens)
        self.change_budget(self.asked_tokens)

    def change_budget(self, budget_tokens: int) -> None:
        """Puts a budget in force. A lower one is a squeeze: a round follows as soon as one can run."""
        if budget_tokens < self.budget_tokens:
            self.squeezes += 1
            self.squeezing = True
        elif budget_tokens >= self.owned_slots:
            self.squeezing = False
        self.budget_tokens = budget_tokens

    def settle_without_round(self) -> None:
        """Notes that a lowered budget has nothing to give back."""
        self.squeezing = False

    def settle(self) -> None:
        """Notes that a round left the row with the slots of the budget in force."""
        self.owned_slots = self.budget_tokens
        self.squeezing = False

    def count(self, allocated_slots: int) -> int:
        """Returns the private slots of a row of this length, and remembers the most."""
        private = allocated_slots - max(self.shared_slots, 0)
        self.peak_slots = max(self.peak_slots, private)
        return private

    def output_tokens(self, allocated_slots: int) -> int:
        """Returns the output tokens that a row of this length stands for."""
        return allocated_slots + self.released_slots - self.prompt_tokens

    def growth_left(self, filled_slots: int, tokens_left: int, queries_missing: int) -> int:
        """Returns the slots that the request may still take when its row is this long.

        Args:
            filled_slots: Length of the row, or of the prefill that will lay it out.
            tokens_left: Tokens that it may still generate.
            queries_missing: Queries that its next round still waits for; a recomputed or squeezed request grows by
                so much beyond its footprint.
        """
        if not self.compressible:
            return tokens_left
        footprint = self.pinned_slots + self.budget_tokens + self.kv.buffer_tokens
        return min(tokens_left, max(footprint - filled_slots, queries_missing))

    @property
    def compressible(self) -> bool:
        """Whether rounds may ever run."""
        return self.kv.method != "full"

    def tail_slots(self, allocated_slots: int) -> int:
        """Returns T of a row that had a round: the slots past the pinned prefix and the owned ones.

        Args:
            allocated_slots: Length of the request's row.
        """
        return allocated_slots - self.pinned_slots - self.owned_slots

    def surplus_slots(self, allocated_slots: int) -> int:
        """Returns the slots that a round would give back; none or less while the budget is not reached.

        A pinned prompt is kept on top of the budget; an evictable one counts against it from the start.

        Args:
            allocated_slots: Length of the request's row.
        """
        pinned = 0 if self.kv.prompt_mode == "evictable" else self.pinned_slots
        return allocated_slots - pinned - self.budget_tokens

    def captured(self, allocated_slots: int) -> int:
        """Returns the queries captured for the next round, those that the ring forgot included."""
        return allocated_slots - self.window_start if self.window_row >= 0 else 0

    def round_due(self, allocated_slots: int, window: int) -> bool:
        """Whether a round must run before the next token is stored.

        A request that was recomputed after a retraction starts over with a long tail and no captured
        queries, and one that is squeezed may have none either; their round waits for a full window.
        """
        full_at = 1 if self.squeezing else self.kv.buffer_tokens
        return (
            self.compressible
            and self.surplus_slots(allocated_slots) >= full_at
            and self.captured(allocated_slots) >= window
        )

    def captures_next(self, allocated_slots: int, window: int) -> bool:
        """Whether the query of the token stored at ``allocated_slots - 1`` is in the next round's window."""
        if self.squeezing:
            return True
        return self.compressible and self.surplus_slots(allocated_slots) > self.kv.buffer_tokens - window
