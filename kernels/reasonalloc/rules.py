"""Layer rules as weights, before bounds and rounding; and the head rule that asks for no scores."""

import math

import torch
from torch import Tensor

from reasonalloc.ops.split import split_rows
from reasonalloc.ops.split.bounds import bounds_around_mean
from reasonalloc.shapes import valid_mask

PYRAMID_BETA = 20.0


def pyramid_weights(num_layers: int) -> Tensor:
    """Shares that fall evenly from the first layer to the last, with mean 1.

    PyramidKV (arXiv 2406.02069): from ``2 - 1/beta`` of the mean to ``1/beta``, beta 20.

    Args:
        num_layers: L.

    Returns:
        ``[L]`` float64.
    """
    least = 1 / PYRAMID_BETA
    return torch.linspace(2 - least, least, num_layers, dtype=torch.float64)


def entropy_weights(scores_LHN: Tensor, lengths_LH: Tensor) -> Tensor:
    """How evenly each layer's scores are spread: normalised entropy, in [0, 1].

    LAVa (arXiv 2509.09754): with ``p`` the scores of a layer's past candidates over their sum, ``H(p) / log |p|``.
    Scores that may be negative are first moved up by the least of their layer; LAVa's own are not.

    Args:
        scores_LHN: float32 scores; ``+inf`` marks the window.
        lengths_LH: int64 candidates of each head.

    Returns:
        ``[L]`` float64.
    """
    past_LHN = valid_mask(lengths_LH, scores_LHN.shape[2]) & (scores_LHN < math.inf)
    scores_LM = torch.where(past_LHN, scores_LHN, 0).double().flatten(1)
    if scores_LM.shape[1] == 0:
        return torch.ones(len(scores_LM), dtype=torch.float64, device=scores_LM.device)
    past_LM = past_LHN.flatten(1)
    share_LM = (scores_LM - scores_LM.amin(dim=1, keepdim=True).clamp(max=0)) * past_LM
    share_LM = share_LM / (share_LM.sum(dim=1, keepdim=True) + 1e-16)
    entropy_L = -(share_LM * (share_LM + 1e-16).log()).sum(dim=1)
    return (entropy_L / past_LM.sum(dim=1).clamp(min=2).double().log()).clamp(min=0)


def shared_heads(
    shares_RH: Tensor, lengths_RH: Tensor, layer_budget_R: Tensor, *, floor: float, ceiling: float, min_cells: int
) -> Tensor:
    """Splits a layer's budget over its heads by shares that a profile holds, the same in every round.

    Args:
        shares_RH: Positive; only ratios within a row matter.
        lengths_RH: int64.
        layer_budget_R: int64 cells, 0 to the row's sum of lengths.
        floor: Least share, as a fraction of the mean share.
        ceiling: Greatest share, as a multiple of the mean share.
        min_cells: Least share in cells, where a head has them and the budget allows it.

    Returns:
        ``[R, H]`` int64 counts, at most ``lengths_RH``; row ``r`` adds up to ``layer_budget_R[r]``.
    """
    least_R = torch.full_like(layer_budget_R, min_cells)
    lower_RH, upper_RH = bounds_around_mean(layer_budget_R, lengths_RH, least_R, floor=floor, ceiling=ceiling)
    return split_rows(shares_RH.double(), layer_budget_R, lower_RH, upper_RH)
