"""The bounded split of one row per program, with the integers of the definition.

Both searches are bisections by bits: for the largest fitting scale over the bits of a float64, and for the
remainders that round up over pairs of (remainder, index), which are all different. Sums are of integers, and each
float64 operation is rounded once, so every step gives what Python gives.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from reasonalloc import split
from reasonalloc.ops import launch

FRACTION_BITS = tl.constexpr(split.FRACTION_BITS)
ONE = tl.constexpr(1 << split.FRACTION_BITS)
MAX_SCALE_BITS = tl.constexpr(split.MAX_SCALE_BITS)
MIN_RELATIVE_WEIGHT = tl.constexpr(split.MIN_RELATIVE_WEIGHT)


@triton.jit
def _shares_at(scale, b_weight, b_low, b_high):
    """Fixed-point shares, [BN]."""
    b_clipped = tl.minimum(tl.maximum(scale * b_weight, b_low), b_high)
    return tl.floor(b_clipped * ONE).to(tl.int64)


@triton.jit
def _largest_fitting_shares(b_weight, b_low, b_high, target):
    """The shares at the largest scale at which they do not exceed the target; the scale 0 always fits."""
    bits = tl.full([], 0, tl.int64)
    for step in range(63):
        trial = bits + (tl.full([], 1 << 62, tl.int64) >> step)
        scale = tl.minimum(trial, MAX_SCALE_BITS).to(tl.float64, bitcast=True)
        fits = tl.sum(_shares_at(scale, b_weight, b_low, b_high), 0) <= target
        bits = tl.where(fits, trial, bits)
    scale = tl.minimum(bits, MAX_SCALE_BITS).to(tl.float64, bitcast=True)
    return _shares_at(scale, b_weight, b_low, b_high)


@triton.jit
def _split(weights_ptr, total_ptr, lower_ptr, upper_ptr, shares_ptr, N, BN: tl.constexpr):
    """Splits one row: weights 4, 1, 1, total 12, bounds 1 to 6 give 6, 3, 3.

    At scale 12 the shares 12, 3, 3 are clipped to 6, 3, 3, which is the total; nothing is left to round.
    """
    i_row = tl.program_id(0).to(tl.int64)
    o_n = tl.arange(0, BN)
    m_n = o_n < N
    o_at = i_row * N + o_n
    total = tl.load(total_ptr + i_row)
    b_weight = tl.load(weights_ptr + o_at, mask=m_n, other=0.0)
    largest = tl.max(b_weight, 0)
    b_relative = tl.maximum(b_weight / tl.where(largest == 0, 1.0, largest), MIN_RELATIVE_WEIGHT)
    b_relative = tl.where(largest == 0, 1.0, b_relative)
    # Padding has bounds 0, so its share is 0 and has no remainder.
    b_low = tl.load(lower_ptr + o_at, mask=m_n, other=0).to(tl.float64)
    b_high = tl.minimum(tl.load(upper_ptr + o_at, mask=m_n, other=0), total).to(tl.float64)
    b_share = _largest_fitting_shares(b_relative, b_low, b_high, total * ONE)

    b_whole = b_share >> FRACTION_BITS
    missing = total - tl.sum(b_whole, 0)
    # Greater remainders first, then lower indices; no two are equal.
    b_order = (b_share % ONE) * BN + (BN - 1 - o_n)
    least = tl.full([], 0, tl.int64)
    for step in range(63):
        trial = least + (tl.full([], 1 << 62, tl.int64) >> step)
        least = tl.where(tl.sum((b_order >= trial).to(tl.int64), 0) >= missing, trial, least)
    tl.store(shares_ptr + o_at, b_whole + (b_order >= least).to(tl.int64), mask=m_n)


def split_rows(weights_RN: Tensor, total_R: Tensor, lower_RN: Tensor, upper_RN: Tensor) -> Tensor:
    """See ``reasonalloc.ops.split.split_rows``."""
    rows, width = weights_RN.shape
    shares_RN = torch.empty(rows, width, dtype=torch.int64, device=weights_RN.device)
    if width == 0:
        return shares_RN
    inputs = (tensor.contiguous() for tensor in (weights_RN.double(), total_R, lower_RN, upper_RN))
    _split[(rows,)](*inputs, shares_RN, width, BN=launch.power_of_2(width))
    return shares_RN
