"""An answer put together from its pieces: figures over all outputs, and the whole of each. Knows no protocol."""

from __future__ import annotations

from dataclasses import dataclass, field

from reasonserve.replica.messages import Delta, Ending
from reasonserve.replica.protocol import TokenLogprob


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a request used.

    Attributes:
        input_tokens: Tokens of the input, counted once.
        output_tokens: Tokens generated, over all outputs.
        cached_tokens: Input tokens found in the prefix cache, by the output that found the fewest.
        reasoning_tokens: Output tokens that are reasoning.
        peak_kv_slots: Most private KV slots held at once, summed over the outputs.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    peak_kv_slots: int


class Tally:
    """Adds up the figures of a request's outputs.

    Args:
        num_outputs: How many there are.
    """

    def __init__(self, num_outputs: int) -> None:
        self._missing = num_outputs
        self._endings: list[Ending] = []

    def add(self, delta: Delta) -> Usage | None:
        """Takes a piece; returns the usage when it is the last one of the last output."""
        if delta.ending is None:
            return None
        self._endings.append(delta.ending)
        self._missing -= 1
        return None if self._missing else self._usage()

    def _usage(self) -> Usage:
        endings = self._endings
        return Usage(
            input_tokens=endings[0].input_tokens,
            output_tokens=sum(ending.output_tokens for ending in endings),
            cached_tokens=min(ending.cached_tokens for ending in endings),
            reasoning_tokens=sum(ending.reasoning_tokens for ending in endings),
            peak_kv_slots=sum(ending.peak_slots for ending in endings),
        )


@dataclass(slots=True)
class WholeOutput:
    """One output with all its pieces."""

    text: str = ""
    reasoning: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    ending: Ending | None = None

    def add(self, delta: Delta) -> None:
        """Takes the next piece."""
        self.text += delta.text
        self.reasoning += delta.reasoning
        self.token_ids += delta.token_ids
        self.logprobs += delta.logprobs
        self.ending = delta.ending
