"""All layers at once."""

import torch
from torch import Tensor

from reasonalloc.ops.split import split_rows
from reasonalloc.ops.split.bounds import bounds_around_mean
from reasonalloc.shapes import valid_mask


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
    return split_rows(demand_RH.double() ** power, layer_budget_R, lower_RH, upper_RH)


def head_demand(scores_RHN: Tensor, lengths_RH: Tensor, layer_budget_R: Tensor) -> Tensor:
    """See ``reasonalloc.ops.route.head_demand``."""
    if scores_RHN[:1].numel() == 0:
        return torch.zeros_like(lengths_RH)
    valid_RHN = valid_mask(lengths_RH, scores_RHN.shape[2])
    pooled = scores_RHN.masked_fill(~valid_RHN, float("-inf")).flatten(1)
    descending = pooled.sort(dim=1, descending=True).values
    threshold_R1 = descending.gather(1, (layer_budget_R[:, None] - 1).clamp(min=0))
    reaches_RHN = valid_RHN & (scores_RHN >= threshold_R1[..., None])
    return reaches_RHN.sum(dim=2) * (layer_budget_R[:, None] > 0)
