"""The bounded split: one operator for tenants, replicas, layers and heads. No torch, no numpy.

Shares are proportional to weights as far as bounds allow: ``clip(scale * weight, lower, upper)``
with the one ``scale`` for which they add up to the total, then rounded to integers by largest
remainder. Clipping first and rescaling afterwards, the textbook shortcut, breaks the bounds again.

Shares are computed in fixed point (``FRACTION_BITS`` binary places), so that sums are exact and
neither the order of summation nor the backend changes a result: ``ops.split.split_rows`` gives the
same integers bit for bit. Every step below is therefore part of the definition.
"""

import math
import struct
from collections.abc import Sequence

from reasonalloc.errors import InfeasibleSplitError

FRACTION_BITS = 20
MAX_TOTAL = 2**31 - 1
# A weight of zero still grows once all others are at their upper bound; below that it is invisible.
MIN_RELATIVE_WEIGHT = 2.0**-40
# With this scale even the smallest weight exceeds MAX_TOTAL, so every share is at its upper bound.
MAX_SCALE = 2.0**72
# Positive floats are ordered like their bit patterns, so a search over these tries every one of them.
MAX_SCALE_BITS = int(struct.unpack("<q", struct.pack("<d", MAX_SCALE))[0])


def bounded_split(
    weights: Sequence[float], total: int, lower: Sequence[int] | int, upper: Sequence[int] | int
) -> list[int]:
    """Splits an integer total in proportion to weights, within bounds.

    ``bounded_split([4, 1, 1], 12, 1, 6) == [6, 3, 3]``: the first share would be 8, is held at 6,
    and what it leaves goes to the others in proportion.

    Args:
        weights: Non-negative and finite, only their ratios matter. All zero counts as all equal.
        total: What to split, at most ``2**31 - 1``.
        lower: Least share, one for all or one each; not negative.
        upper: Greatest share, one for all or one each.

    Returns:
        Shares that add up to ``total``; ties of the rounding go to the lower index.

    Raises:
        ValueError: A weight is negative, infinite or NaN, or an argument is out of range.
        InfeasibleSplitError: The bounds cannot add up to ``total``, or a lower exceeds its upper.
    """
    relative = _relative_weights(weights)
    count = len(relative)
    low = [lower] * count if isinstance(lower, int) else list(lower)
    high = [upper] * count if isinstance(upper, int) else list(upper)
    _check_bounds(count, total, low, high)
    if count == 0:
        return []
    shares = _largest_fitting_shares(relative, total, low, high)
    return _round_shares(shares, total)


def _relative_weights(weights: Sequence[float]) -> list[float]:
    for index, weight in enumerate(weights):
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"weight {index} is {weight}; give finite weights of at least 0")
    largest = max(weights, default=0.0)
    if largest == 0:
        return [1.0] * len(weights)
    return [max(float(weight) / float(largest), MIN_RELATIVE_WEIGHT) for weight in weights]


def _check_bounds(count: int, total: int, low: list[int], high: list[int]) -> None:
    if len(low) != count or len(high) != count:
        raise ValueError(f"{count} weights, {len(low)} lower and {len(high)} upper bounds; give as many of each")
    if not 0 <= total <= MAX_TOTAL:
        raise ValueError(f"total is {total}; give 0 to {MAX_TOTAL}")
    for index, (least, most) in enumerate(zip(low, high, strict=True)):
        if least < 0:
            raise ValueError(f"lower bound {index} is {least}; give at least 0")
        if least > most:
            raise InfeasibleSplitError(f"lower bound {index} is {least}, above its upper bound {most}")
    if not sum(low) <= total <= sum(high):
        raise InfeasibleSplitError(
            f"total is {total}, but the bounds of {count} shares allow {sum(low)} to {sum(high)}; "
            "change the total or relax the bounds"
        )


def _largest_fitting_shares(relative: list[float], total: int, low: list[int], high: list[int]) -> list[int]:
    """Fixed-point shares at the largest float64 scale at which they do not exceed the total."""
    target = total << FRACTION_BITS
    # No share exceeds the total; the tighter bound keeps huge upper bounds exact in float64.
    bounds = [(float(least), float(min(most, total))) for least, most in zip(low, high, strict=True)]

    def shares_at(scale: float) -> list[int]:
        clipped = (
            min(max(scale * weight, least), most) for weight, (least, most) in zip(relative, bounds, strict=True)
        )
        return [math.floor(share * (1 << FRACTION_BITS)) for share in clipped]

    fits, exceeds = 0, MAX_SCALE_BITS + 1
    while exceeds - fits > 1:
        middle = (fits + exceeds) // 2
        if sum(shares_at(_from_bits(middle))) <= target:
            fits = middle
        else:
            exceeds = middle
    return shares_at(_from_bits(fits))


def _round_shares(shares: list[int], total: int) -> list[int]:
    """Largest remainder. Bounds are integers, so only shares strictly inside them have a remainder."""
    whole = [share >> FRACTION_BITS for share in shares]
    fraction_mask = (1 << FRACTION_BITS) - 1
    by_remainder = sorted(range(len(shares)), key=lambda index: (-(shares[index] & fraction_mask), index))
    for index in by_remainder[: total - sum(whole)]:
        whole[index] += 1
    return whole


def _from_bits(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<q", bits))[0])
