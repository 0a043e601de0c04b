"""When room comes free: the wait that a refused client is told, computed from the requests that run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MIN_RETRY_S = 0.1
MAX_RETRY_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """A release that is expected.

    Attributes:
        slots: Slots that come free.
        remaining_tokens: Most tokens the request still generates.
        tokens_per_s: Its observed rate; None before its first token.
    """

    slots: int
    remaining_tokens: int
    tokens_per_s: float | None


def retry_after_s(shortfall: int, releases: Iterable[Release], *, unknown_s: float) -> float:
    """Returns when the earliest releases will have freed the shortfall.

    A request without a rate of its own is taken to run at the mean of the others: they share one engine.

    Args:
        shortfall: Slots that are missing.
        releases: Requests that run.
        unknown_s: The answer when no rate is known, or all releases together free too little.

    Returns:
        Seconds in [0.1, 60].
    """
    running = tuple(releases)
    rates = [r.tokens_per_s for r in running if r.tokens_per_s]
    if not rates:
        return _clamp(unknown_s)
    mean = sum(rates) / len(rates)
    ends = sorted((r.remaining_tokens / (r.tokens_per_s or mean), r.slots) for r in running)
    for seconds, slots in ends:
        shortfall -= slots
        if shortfall <= 0:
            return _clamp(seconds)
    return _clamp(unknown_s)


def _clamp(seconds: float) -> float:
    return min(max(seconds, MIN_RETRY_S), MAX_RETRY_S)
