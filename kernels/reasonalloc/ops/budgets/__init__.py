"""Cells per layer."""

import torch
from torch import Tensor

from reasonalloc.ops.budgets import vectorized
from reasonalloc.shapes import check_axes, check_dtype


def layer_budgets(
    weights_L: Tensor,
    total_cells_B: Tensor,
    available_BL: Tensor,
    floor_cells_B: Tensor,
    *,
    floor: float = 0.25,
    ceiling: float = 2.0,
) -> Tensor:
    """Splits each request's cells over the layers of the model.

    ReasonAlloc (arXiv 2606.11164), section 5.2, with the bounds solved exactly. Weights of one give
    the uniform rule. A bound that cannot be met gives way: to what a layer has, to the mean share,
    and the upper one to the total.

    Args:
        weights_L: Floating point demand of each layer, already smoothed
            (``LayerProfile.layer_weights``).
        total_cells_B: int64 cells a request may keep, at most its sum of ``available_BL``.
        available_BL: int64 candidates in a layer, over all its heads.
        floor_cells_B: int64, least cells of a layer.
        floor: Least share, as a fraction of the mean share.
        ceiling: Greatest share, as a multiple of the mean share.

    Returns:
        ``[B, L]`` int64, at most ``available_BL``; row ``b`` adds up to ``total_cells_B[b]``.

    Raises:
        ValueError: Shapes, dtypes or ranges are wrong.
    """
    check_axes(weights_L=weights_L, total_cells_B=total_cells_B, available_BL=available_BL, floor_cells_B=floor_cells_B)
    check_dtype(torch.int64, total_cells_B=total_cells_B, available_BL=available_BL, floor_cells_B=floor_cells_B)
    return vectorized.layer_budgets(weights_L, total_cells_B, available_BL, floor_cells_B, floor=floor, ceiling=ceiling)
