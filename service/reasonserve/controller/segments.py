"""Many weighted max-min fillings at once, on arrays: `fill.water_fill` slot for slot.

Letters: n entries, S segments; a segment's entries lie together. Exact for bounds below 2**31 with weights
below 2**18 (products stay below 2**63, quotients apart by more than a double's precision).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Segments:
    """Where segments lie among entries that are sorted by segment.

    Args:
        of: Segment of each entry, ascending, [n].
        count: S; segments may be empty.
    """

    def __init__(self, of: Ints, count: int) -> None:
        self.of, self.count = of, count
        self._bounds = np.searchsorted(of, np.arange(count + 1))

    def sums(self, values: npt.NDArray[np.generic]) -> Ints:
        """Returns each segment's sum, [S]."""
        running = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum(values, out=running[1:])
        return np.asarray(running[self._bounds[1:]] - running[self._bounds[:-1]])

    def largest(self, values: Ints) -> Ints:
        """Returns each segment's largest value, 0 where it is empty, [S]."""
        result = np.zeros(self.count, dtype=np.int64)
        filled = self._bounds[1:] > self._bounds[:-1]
        if filled.any():
            result[filled] = np.maximum.reduceat(values, self._bounds[:-1][filled])
        return result

    def fill(self, rooms: Ints, floors: Ints, caps: Ints, weights: Ints) -> Ints:
        """Fills every segment as `fill.water_fill` does.

        Args:
            rooms: What a segment may sum to, [S].
            floors: Least value, [n].
            caps: Largest value, at least the floor, [n].
            weights: At least 1, [n].

        Returns:
            Values, [n].
        """
        whole, taken = self.sums(caps), self.sums(floors)
        contested = (whole > rooms) & (taken < rooms)
        values = np.where((whole <= rooms)[self.of], caps, floors)
        if not contested.any():
            return values
        free = np.flatnonzero(contested[self.of] & (floors < caps))
        part = Segments(self.of[free], self.count)
        low, high, weight = floors[free], caps[free], weights[free]
        left = rooms - taken + part.sums(low)
        values[free] = _fill_contested(part, left, low, high, weight)
        return values


def _fill_contested(part: Segments, rooms: Ints, low: Ints, high: Ints, weight: Ints) -> Ints:
    """Fills segments whose floors fit and whose caps do not; every entry has a floor below its cap."""
    reached = _reached(part, rooms, low, high, weight)
    level = reached[part.of]
    starts, ends = low / weight, high / weight
    active = (starts <= level) & (level < ends)
    values = np.where(ends <= level, high, low)
    shared = rooms - part.sums(np.where(active, 0, values))
    whole = part.sums(np.where(active, weight, 0))
    share = shared[part.of] * weight // np.maximum(whole, 1)[part.of]
    values = np.where(active, np.clip(share, low, high), values)
    left = rooms - part.sums(values)
    order = np.lexsort((-weight, ~active, part.of))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.searchsorted(part.of, part.of[order])
    return values + (active & (rank < left[part.of]))


def _reached(part: Segments, rooms: Ints, low: Ints, high: Ints, weight: Ints) -> npt.NDArray[np.float64]:
    """Returns the last level, of those where an entry begins or ends to grow, that does not exceed the room, [S].

    Sorts these levels and walks each segment once, by running sums: below a level the entries sum to
    ``base + level * growing``, linear between neighbours.
    """
    n = len(low)
    bound = np.concatenate((low, high))
    twice = np.concatenate((weight, weight))
    of = np.concatenate((part.of, part.of))
    level = bound / twice
    order = np.lexsort((level, of))
    of, level, bound, twice = of[order], level[order], bound[order], twice[order]
    sign = np.where(order < n, 1, -1)
    begins = Segments(of, part.count)
    growing = _running(begins, sign * twice)
    base = part.sums(low)[of] - _running(begins, sign * bound)
    over = rooms[of] - base
    # bound / weight * growing <= over, without a product that overflows.
    fits = (over >= 0) & ((growing == 0) | (bound <= over * twice // np.maximum(growing, 1)))
    last = np.zeros(part.count, dtype=np.int64)
    np.maximum.at(last, of[fits], np.flatnonzero(fits))
    return np.asarray(level[last])


def _running(segments: Segments, values: Ints) -> Ints:
    """Returns running sums that begin anew with each segment, [n]."""
    total = np.cumsum(values)
    first = np.searchsorted(segments.of, segments.of)
    return np.asarray(total - total[first] + values[first])
