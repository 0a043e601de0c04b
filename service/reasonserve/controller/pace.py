"""How often the memory is split: at once while that is cheap, else so that it takes a bounded share of the time."""

from __future__ import annotations

SHARE = 0.25
BURST_S = 0.25


class Pace:
    """A budget of seconds that fills with time and is spent on splits.

    Args:
        now: The caller's clock, in seconds.
    """

    def __init__(self, now: float) -> None:
        self._left_s, self._filled_at = BURST_S, now

    def spend(self, seconds: float, now: float) -> None:
        """Notes what a split took; it may overdraw the budget."""
        self._left_s = self._filled(now) - seconds
        self._filled_at = now

    def wait_s(self, now: float) -> float:
        """Returns how long to wait before the next split; 0 when it may be made now."""
        return max(0.0, -self._filled(now) / SHARE)

    def _filled(self, now: float) -> float:
        return min(BURST_S, self._left_s + (now - self._filled_at) * SHARE)
