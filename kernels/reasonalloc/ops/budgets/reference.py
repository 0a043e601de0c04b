"""One request at a time."""

import math

import torch
from torch import Tensor

from reasonalloc.split import bounded_split


def layer_budgets(
    weights_L: Tensor,
    total_cells_B: Tensor,
    available_BL: Tensor,
    floor_cells_B: Tensor,
    *,
    floor: float = 0.25,
    ceiling: float = 2.0,
) -> Tensor:
    """See ``reasonalloc.ops.budgets.layer_budgets``; raises on a total above what a request has."""
    budgets_BL = torch.zeros_like(available_BL)
    for request in range(available_BL.shape[0]):
        total = int(total_cells_B[request])
        available = available_BL[request].tolist()
        mean = total / len(available)
        least = max(math.floor(mean * floor), int(floor_cells_B[request]))
        lower = [min(least, total // len(available), cells) for cells in available]
        upper = [min(math.ceil(mean * ceiling), cells) for cells in available]
        if sum(upper) < total:
            upper = available
        shares = bounded_split(weights_L.tolist(), total, lower, upper)
        budgets_BL[request] = torch.tensor(shares, dtype=torch.int64)
    return budgets_BL
