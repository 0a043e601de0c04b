"""When room comes free: the wait that a client is told, computed from what this replica has seen.

Two forecasts, and the sooner one counts; both err on the late side, for requests often end before their limit:

1. The observed release rate. With releases of s_i slots at times t_i, an exponential window tau and the start of
   observation t_0, the rate at t is the sum of s_i * exp(-(t - t_i) / tau), over tau * (1 - exp(-(t - t_0) / tau)).
   The wait is the slots that lack, those that wait ahead included, over that rate.
2. The ends of the requests that run: tokens that each may still generate over its observed tokens per second,
   added up soonest first until the slots suffice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, expm1

MIN_RETRY_S = 0.1
MAX_RETRY_S = 60.0
WINDOW_S = 30.0
"""tau: long enough to see several releases, short enough to follow a change of load."""


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


class ReleaseRate:
    """Slots released per second, lately. Time never goes back.

    Args:
        now: Start of observation, in seconds.
    """

    def __init__(self, *, now: float) -> None:
        self._since = self._updated = now
        self._weighted = 0.0

    def note(self, slots: int, *, now: float) -> None:
        """Counts a release."""
        self._weighted = self._weighted * exp((self._updated - now) / WINDOW_S) + slots
        self._updated = now

    def slots_per_s(self, *, now: float) -> float:
        """Returns the rate of the module's docstring; 0 before the first release."""
        observed = -expm1((self._since - now) / WINDOW_S)
        if observed <= 0.0:
            return 0.0
        return self._weighted * exp((self._updated - now) / WINDOW_S) / (WINDOW_S * observed)


def retry_after_s(shortfall: int, *, slots_per_s: float, releases: Iterable[Release], unknown_s: float) -> float:
    """Returns when slots will have come free, by the sooner of the two forecasts.

    Args:
        shortfall: Slots that lack, those that others wait for before included.
        slots_per_s: The observed release rate.
        releases: Requests that run.
        unknown_s: The answer when neither forecast can be made.

    Returns:
        Seconds in [0.1, 60].
    """
    forecasts = [shortfall / slots_per_s] if slots_per_s > 0 else []
    if (end_s := _until_released(shortfall, tuple(releases))) is not None:
        forecasts.append(end_s)
    return min(max(min(forecasts, default=unknown_s), MIN_RETRY_S), MAX_RETRY_S)


def _until_released(shortfall: int, running: tuple[Release, ...]) -> float | None:
    """Returns when the earliest releases will have freed the shortfall; None where that is not known.

    A request without a rate of its own is taken to run at the mean of the others: they share one engine.
    """
    rates = [r.tokens_per_s for r in running if r.tokens_per_s]
    if not rates:
        return None
    mean = sum(rates) / len(rates)
    for seconds, slots in sorted((r.remaining_tokens / (r.tokens_per_s or mean), r.slots) for r in running):
        shortfall -= slots
        if shortfall <= 0:
            return seconds
    return None
