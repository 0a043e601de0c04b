"""Cells per kv head within a layer."""

import torch
from torch import Tensor

from reasonalloc.ops import launch
from reasonalloc.ops.route import vectorized
from reasonalloc.ops.split import split_rows
from reasonalloc.shapes import check_axes, check_dtype


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
