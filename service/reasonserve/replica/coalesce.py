"""Pieces of output share a message when they come close together. A pure state machine: ``now`` is an argument."""

from __future__ import annotations

from dataclasses import replace

from reasonserve.replica.messages import Delta


def joined(earlier: Delta, later: Delta) -> Delta:
    """Returns one delta for two of the same output in a row."""
    return replace(
        later,
        text=earlier.text + later.text,
        reasoning=earlier.reasoning + later.reasoning,
        token_ids=earlier.token_ids + later.token_ids,
        logprobs=earlier.logprobs + later.logprobs,
    )


class Coalescer:
    """Holds pieces back for a bounded time, each output for itself.

    The first piece of an output goes at once, so does its end. A piece in between goes at once when the last one of
    its output went ``delay_s`` ago or longer, and when that time has passed otherwise: nothing waits longer than
    ``delay_s``, and an output makes at most one message in that time.

    Args:
        delay_s: Longest wait, in seconds; 0 holds nothing back.
    """

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._held: dict[int, Delta] = {}
        self._free_at: dict[int, float] = {}  # when the next piece of an output may go

    def add(self, delta: Delta) -> None:
        """Takes a piece."""
        held = self._held.get(delta.index)
        self._held[delta.index] = delta if held is None else joined(held, delta)

    def take(self, *, now: float) -> list[Delta]:
        """Returns what goes now, in the order of the outputs."""
        due = [i for i, delta in self._held.items() if delta.ending or self._free_at.get(i, now) <= now]
        for index in due:
            self._free_at[index] = now + self._delay_s
        return [self._held.pop(index) for index in sorted(due)]

    def flush(self) -> list[Delta]:
        """Returns everything that is held back, in the order of the outputs."""
        held, self._held = self._held, {}
        return [held[index] for index in sorted(held)]

    def due_at(self) -> float | None:
        """Returns when ``take`` will return something; None as long as nothing is held back."""
        return min((self._free_at.get(index, 0.0) for index in self._held), default=None)
