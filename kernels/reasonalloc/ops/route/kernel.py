"""Demands of heads by the threshold of their layer, then the bounded split.

The threshold is bisected over the scores of all heads of a layer as ``ops.keep`` does over one list. Bounds
are a handful of torch operations, the split is a kernel; nothing waits for the host.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from reasonalloc.ops import launch
from reasonalloc.ops.common import ordered_bits
from reasonalloc.ops.split import kernel as split_kernel
from reasonalloc.ops.split.bounds import bounds_around_mean

_MAX_BLOCK = 4096


@triton.jit
def _reach(scores_ptr, lengths_ptr, o_at, last, N, threshold):
    """Which of a layer's scores, numbered through its heads, are not padding and reach the threshold, [BN]."""
    m_at = o_at < last
    m_score = m_at & (o_at % N < tl.load(lengths_ptr + o_at // N, mask=m_at, other=0))
    return m_score & (ordered_bits(tl.load(scores_ptr + o_at, mask=m_score, other=0.0)) >= threshold)


@triton.jit
def _demand(
    scores_ptr, lengths_ptr, budget_ptr, demand_ptr, N, H: tl.constexpr, BL: tl.constexpr, BN: tl.constexpr
):  # fmt: skip
    """Counts, for each head of one layer, the scores that reach the budget-th highest of the layer.

    Heads with 9, 2, 8 and 1, 7, 3 and a budget of 3: the threshold is 7 and the demands 2 and 1.
    """
    i_row = tl.program_id(0).to(tl.int64)
    scores_ptr += i_row * H * N
    lengths_ptr += i_row * H
    budget = tl.load(budget_ptr + i_row)
    threshold = tl.full([], 0, tl.int64)
    for step in range(32):
        trial = threshold + (tl.full([], 2147483648, tl.int64) >> step)
        reach = tl.full([], 0, tl.int64)
        for at in range(0, H * N, BL):
            m_reach = _reach(scores_ptr, lengths_ptr, at + tl.arange(0, BL), H * N, N, trial)
            reach += tl.sum(m_reach.to(tl.int64), 0)
        threshold = tl.where(reach >= budget, trial, threshold)
    for i_h in range(H):
        demand = tl.full([], 0, tl.int64)
        for at in range(0, N, BN):
            m_reach = _reach(scores_ptr, lengths_ptr, i_h * N + at + tl.arange(0, BN), (i_h + 1) * N, N, threshold)
            demand += tl.sum(m_reach.to(tl.int64), 0)
        # No score is above the greatest threshold, which is what a budget of 0 finds.
        tl.store(demand_ptr + i_row * H + i_h, demand)


def route_heads(
    scores_RHN: Tensor,
    lengths_RH: Tensor,
    layer_budget_R: Tensor,
    *,
    power: float,
    floor: float,
    ceiling: float,
    min_cells: int,
) -> Tensor:
    """See ``reasonalloc.ops.route.route_heads``."""
    least_R = torch.full_like(layer_budget_R, min_cells)
    lower_RH, upper_RH = bounds_around_mean(layer_budget_R, lengths_RH, least_R, floor=floor, ceiling=ceiling)
    demand_RH = head_demand(scores_RHN, lengths_RH, layer_budget_R)
    return split_kernel.split_rows(demand_RH.double() ** power, layer_budget_R, lower_RH, upper_RH)


def head_demand(scores_RHN: Tensor, lengths_RH: Tensor, layer_budget_R: Tensor) -> Tensor:
    """See ``reasonalloc.ops.route.head_demand``."""
    rows, heads, width = scores_RHN.shape
    if heads * width == 0:
        return torch.zeros_like(lengths_RH)
    demand_RH = torch.empty(rows, heads, dtype=torch.int64, device=scores_RHN.device)
    inputs = (tensor.contiguous() for tensor in (scores_RHN, lengths_RH, layer_budget_R))
    layer_block, head_block = (min(launch.power_of_2(size), _MAX_BLOCK) for size in (heads * width, width))
    _demand[(rows,)](*inputs, demand_RH, width, H=heads, BL=layer_block, BN=head_block, num_warps=8)
    return demand_RH
