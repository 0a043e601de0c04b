"""Cells per kv head within a layer."""

import torch
from torch import Tensor

from reasonalloc.ops import launch
from reasonalloc.ops.route import vectorized
from reasonalloc.ops.split import split_rows
from reasonalloc.shapes import check_axes, check_dtype, valid_mask


def route_heads(
    scores_RHN: Tensor,
    lengths_RH: Tensor,
    layer_budget_R: Tensor,
    *,
    power: float = 0.5,
    floor: float = 0.25,
    ceiling: float = 2.0,
    min_cells: int,
) -> Tensor:
    """Splits a layer's budget over its heads by how many of the layer's best candidates each holds.

    ReasonAlloc (arXiv 2606.11164), section 5.3. Pool the scores of all heads of a layer; the
    threshold is the budget-th highest; a head's demand is the number of its scores that reach it, ties
    included; demand to the ``power`` is split within bounds around the mean share. A bound that
    cannot be met gives way: to what a head has, to the mean share, and the upper one to the total.

    Args:
        scores_RHN: float32, no NaN within lengths. Heads of unequal lengths compare fairly only with
            length-free scores, see ``reasonalloc.ops.score``.
        lengths_RH: int64.
        layer_budget_R: int64 cells, 0 to the row's sum of lengths.
        power: Exponent that evens out demands.
        floor: Least share, as a fraction of the mean share.
        ceiling: Greatest share, as a multiple of the mean share.
        min_cells: Least share in cells; at least the scoring window.

    Returns:
        ``[R, H]`` int64 counts, at most ``lengths_RH``; row ``r`` adds up to ``layer_budget_R[r]``.

    Raises:
        ValueError: Shapes, dtypes or ranges are wrong.
    """
    check_axes(scores_RHN=scores_RHN, lengths_RH=lengths_RH, layer_budget_R=layer_budget_R)
    check_dtype(torch.float32, scores_RHN=scores_RHN)
    check_dtype(torch.int64, lengths_RH=lengths_RH, layer_budget_R=layer_budget_R)
    arguments = scores_RHN, lengths_RH, layer_budget_R
    if launch.use_kernel(scores_RHN.device):
        from reasonalloc.ops.route import kernel

        return kernel.route_heads(*arguments, power=power, floor=floor, ceiling=ceiling, min_cells=min_cells)
    return vectorized.route_heads(*arguments, power=power, floor=floor, ceiling=ceiling, min_cells=min_cells)


def adakv_heads(scores_RHN: Tensor, lengths_RH: Tensor, layer_budget_R: Tensor, *, floor: float = 0.2) -> Tensor:
    """Splits a layer's budget over its heads by the layer's best candidates, mixed with equal shares.

    Ada-KV (arXiv 2407.11550), algorithm 1. Of the budget without the windows, a head gets ``1 - floor`` of what it
    holds of the layer's best past candidates, and ``floor`` of the mean share; its window comes on top.

    Args:
        scores_RHN: float32, no NaN within lengths; ``+inf`` marks the window.
        lengths_RH: int64.
        layer_budget_R: int64 cells, 0 to the row's sum of lengths.
        floor: Share of the budget that is split equally.

    Returns:
        ``[R, H]`` int64 counts, at most ``lengths_RH``; row ``r`` adds up to ``layer_budget_R[r]``.

    Raises:
        ValueError: Shapes, dtypes or ranges are wrong.
    """
    if not 0 <= floor <= 1:
        raise ValueError(f"floor is {floor}; give 0 to 1")
    demand_RH = head_demand(scores_RHN, lengths_RH, layer_budget_R)
    window_RH = ((scores_RHN == torch.inf) & valid_mask(lengths_RH, scores_RHN.shape[2])).sum(dim=2)
    window_RH = torch.minimum(window_RH, (layer_budget_R // lengths_RH.shape[1])[:, None])
    base_R1 = (layer_budget_R - window_RH.sum(dim=1))[:, None] / lengths_RH.shape[1]
    weights_RH = window_RH + (1 - floor) * (demand_RH - window_RH).clamp(min=0).double() + floor * base_R1.double()
    return split_rows(weights_RH, layer_budget_R, window_RH, lengths_RH)


def one_pass_heads(
    scores_RHN: Tensor,
    lengths_RH: Tensor,
    layer_budget_R: Tensor,
    *,
    power: float = 0.5,
    floor: float = 0.25,
    ceiling: float = 2.0,
    min_cells: int,
) -> Tensor:
    """Splits like ``route_heads``, but clips demands once and rescales, as ReasonAlloc's paper is read.

    Rescaling moves shares past the bounds again, mostly the upper one.

    Args:
        scores_RHN, lengths_RH, layer_budget_R, power: See ``route_heads``.
        floor, ceiling: Clip of smoothed demands, as multiples of their mean.
        min_cells: Least share in cells, where a head has them and the budget allows it.

    Returns:
        ``[R, H]`` int64 counts, at most ``lengths_RH``; row ``r`` adds up to ``layer_budget_R[r]``.

    Raises:
        ValueError: Shapes, dtypes or ranges are wrong.
    """
    if not 0 <= floor <= 1 <= ceiling:
        raise ValueError(f"floor is {floor} and ceiling {ceiling}; give 0 <= floor <= 1 <= ceiling")
    smoothed_RH = head_demand(scores_RHN, lengths_RH, layer_budget_R).double() ** power
    mean_R1 = smoothed_RH.mean(dim=1, keepdim=True)
    clipped_RH = torch.minimum(torch.maximum(smoothed_RH, floor * mean_R1), ceiling * mean_R1)
    mean_cells_R1 = layer_budget_R[:, None] // lengths_RH.shape[1]
    lower_RH = torch.minimum(mean_cells_R1.clamp(max=min_cells), lengths_RH)
    return split_rows(clipped_RH, layer_budget_R, lower_RH, lengths_RH)


def head_demand(scores_RHN: Tensor, lengths_RH: Tensor, layer_budget_R: Tensor) -> Tensor:
    """How many of a layer's best candidates each head holds.

    The threshold is the budget-th highest score of all heads; ties with it count for every head.

    Args:
        scores_RHN: float32, no NaN within lengths.
        lengths_RH: int64.
        layer_budget_R: int64 cells, 0 to the row's sum of lengths.

    Returns:
        ``[R, H]`` int64; zero where the budget is.

    Raises:
        ValueError: Shapes or dtypes do not agree.
    """
    check_axes(scores_RHN=scores_RHN, lengths_RH=lengths_RH, layer_budget_R=layer_budget_R)
    check_dtype(torch.float32, scores_RHN=scores_RHN)
    check_dtype(torch.int64, lengths_RH=lengths_RH, layer_budget_R=layer_budget_R)
    if launch.use_kernel(scores_RHN.device):
        from reasonalloc.ops.route import kernel

        return kernel.head_demand(scores_RHN, lengths_RH, layer_budget_R)
    return vectorized.head_demand(scores_RHN, lengths_RH, layer_budget_R)


def uniform_heads(lengths_RH: Tensor, layer_budget_R: Tensor, min_cells: int) -> Tensor:
    """Splits a layer's budget over its heads equally, as far as their lengths allow (R-KV's rule).

    Args:
        lengths_RH: int64.
        layer_budget_R: int64 cells, 0 to the row's sum of lengths.
        min_cells: Least share in cells, where a head has them and the budget allows it.

    Returns:
        ``[R, H]`` int64 counts, at most ``lengths_RH``; row ``r`` adds up to ``layer_budget_R[r]``.

    Raises:
        ValueError: Shapes or dtypes do not agree.
    """
    check_axes(lengths_RH=lengths_RH, layer_budget_R=layer_budget_R)
    check_dtype(torch.int64, lengths_RH=lengths_RH, layer_budget_R=layer_budget_R)
    equal_RH = torch.ones_like(lengths_RH, dtype=torch.float64)
    mean_R1 = layer_budget_R[:, None] // lengths_RH.shape[1]
    lower_RH = torch.minimum(mean_R1.clamp(max=min_cells), lengths_RH)
    return split_rows(equal_RH, layer_budget_R, lower_RH, lengths_RH)
