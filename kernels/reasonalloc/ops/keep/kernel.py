"""Exact top-k of each list: bisect for the k-th highest score, then mark.

A score's bits, put in the order of its value, are an integer below ``2**32``; the k-th highest is found bit
by bit, by counting how many scores reach a candidate. No sort, no atomics, and ties are exact.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from reasonalloc.ops import launch
from reasonalloc.ops.common import ordered_bits

_MAX_BLOCK = 2048


@triton.jit
def _bits(scores_ptr, o_n, length):
    """Ordered bits of a list's scores, and which are not padding, each [BN]."""
    m_n = o_n < length
    return ordered_bits(tl.load(scores_ptr + o_n, mask=m_n, other=0.0)), m_n


@triton.jit
def _keep(scores_ptr, lengths_ptr, counts_ptr, keep_ptr, N, BN: tl.constexpr):
    """Marks one list: of scores 3, 1, 3, 3 and k = 2 the last two.

    The second highest is 3; no score is above it, so both places go to the last of the three that equal it.
    """
    i_list = tl.program_id(0).to(tl.int64)
    length, count = tl.load(lengths_ptr + i_list), tl.load(counts_ptr + i_list)
    scores_ptr += i_list * N
    threshold = tl.full([], 0, tl.int64)
    for step in range(32):
        trial = threshold + (tl.full([], 2147483648, tl.int64) >> step)
        reach = tl.full([], 0, tl.int64)
        for at in range(0, N, BN):
            b_bits, m_n = _bits(scores_ptr, at + tl.arange(0, BN), length)
            reach += tl.sum((m_n & (b_bits >= trial)).to(tl.int64), 0)
        threshold = tl.where(reach >= count, trial, threshold)
    num_above = tl.full([], 0, tl.int64)
    num_level = tl.full([], 0, tl.int64)
    for at in range(0, N, BN):
        b_bits, m_n = _bits(scores_ptr, at + tl.arange(0, BN), length)
        num_above += tl.sum((m_n & (b_bits > threshold)).to(tl.int64), 0)
        num_level += tl.sum((m_n & (b_bits == threshold)).to(tl.int64), 0)
    # Ties go to later positions: so many of the first ones get no place.
    passed_over = num_level - (count - num_above)
    for at in range(0, N, BN):
        o_n = at + tl.arange(0, BN)
        b_bits, m_n = _bits(scores_ptr, o_n, length)
        m_level = m_n & (b_bits == threshold)
        m_late = tl.cumsum(m_level.to(tl.int64), 0) > passed_over
        m_keep = (m_n & (b_bits > threshold)) | (m_level & m_late)
        tl.store(keep_ptr + i_list * N + o_n, m_keep, mask=o_n < N)
        passed_over -= tl.sum(m_level.to(tl.int64), 0)


def keep_top(scores_RHN: Tensor, lengths_RH: Tensor, counts_RH: Tensor) -> Tensor:
    """See ``reasonalloc.ops.keep.keep_top``."""
    rows, heads, width = scores_RHN.shape
    keep_RHN = torch.empty(rows, heads, width, dtype=torch.bool, device=scores_RHN.device)
    if width == 0:
        return keep_RHN
    inputs = (tensor.contiguous() for tensor in (scores_RHN, lengths_RH, counts_RH))
    _keep[(rows * heads,)](*inputs, keep_RHN, width, BN=min(launch.power_of_2(width), _MAX_BLOCK))
    return keep_RHN
