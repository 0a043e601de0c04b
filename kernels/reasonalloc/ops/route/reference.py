"""One layer at a time."""

import math

import torch
from torch import Tensor

from reasonalloc.split import bounded_split


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
    """See ``reasonalloc.ops.route.route_heads``; raises on a budget above what a layer has."""
    counts_RH = torch.zeros_like(lengths_RH)
    for row in range(scores_RHN.shape[0]):
        budget = int(layer_budget_R[row])
        lengths = lengths_RH[row].tolist()
        lists = [scores_RHN[row, head, :length].tolist() for head, length in enumerate(lengths)]
        demand = demand_of_lists(lists, budget)
        mean = budget / len(lengths)
        least = max(math.floor(mean * floor), min_cells)
        lower = [min(least, budget // len(lengths), length) for length in lengths]
        upper = [min(math.ceil(mean * ceiling), length) for length in lengths]
        if sum(upper) < budget:
            upper = lengths
        counts = bounded_split([math.pow(count, power) for count in demand], budget, lower, upper)
        counts_RH[row] = torch.tensor(counts, dtype=torch.int64)
    return counts_RH


def adakv_heads(scores_RHN: Tensor, lengths_RH: Tensor, layer_budget_R: Tensor, *, floor: float = 0.2) -> Tensor:
    """See ``reasonalloc.ops.route.adakv_heads``."""
    counts_RH = torch.zeros_like(lengths_RH)
    for row in range(scores_RHN.shape[0]):
        budget, lengths = int(layer_budget_R[row]), lengths_RH[row].tolist()
        heads = len(lengths)
        lists = [scores_RHN[row, head, :length].tolist() for head, length in enumerate(lengths)]
        windows = [min(sum(score == math.inf for score in scores), budget // heads) for scores in lists]
        demand = demand_of_lists(lists, budget)
        base = (budget - sum(windows)) / heads
        weights = [
            window + (1 - floor) * max(count - window, 0) + floor * base
            for window, count in zip(windows, demand, strict=True)
        ]
        counts_RH[row] = torch.tensor(bounded_split(weights, budget, windows, lengths), dtype=torch.int64)
    return counts_RH


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
    """See ``reasonalloc.ops.route.one_pass_heads``."""
    counts_RH = torch.zeros_like(lengths_RH)
    for row in range(scores_RHN.shape[0]):
        budget, lengths = int(layer_budget_R[row]), lengths_RH[row].tolist()
        lists = [scores_RHN[row, head, :length].tolist() for head, length in enumerate(lengths)]
        smoothed = [math.pow(count, power) for count in demand_of_lists(lists, budget)]
        mean = math.fsum(smoothed) / len(smoothed)
        clipped = [min(max(demand, floor * mean), ceiling * mean) for demand in smoothed]
        lower = [min(min_cells, budget // len(lengths), length) for length in lengths]
        counts_RH[row] = torch.tensor(bounded_split(clipped, budget, lower, lengths), dtype=torch.int64)
    return counts_RH


def demand_of_lists(lists: list[list[float]], budget: int) -> list[int]:
    """How many scores of each list are among the ``budget`` highest of all lists, ties included."""
    pooled = sorted((score for scores in lists for score in scores), reverse=True)
    if budget == 0 or budget > len(pooled):
        return [0] * len(lists)
    return [sum(score >= pooled[budget - 1] for score in scores) for scores in lists]
