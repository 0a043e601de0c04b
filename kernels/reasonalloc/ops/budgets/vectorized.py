"""All requests at once."""

from torch import Tensor

from reasonalloc.ops.split import split_rows
from reasonalloc.ops.split.bounds import bounds_around_mean


def layer_budgets(
    weights_L: Tensor,
    total_cells_B: Tensor,
    available_BL: Tensor,
    floor_cells_B: Tensor,
    *,
    floor: float,
    ceiling: float,
) -> Tensor:
    """See ``reasonalloc.ops.budgets.layer_budgets``."""
    lower_BL, upper_BL = bounds_around_mean(total_cells_B, available_BL, floor_cells_B, floor=floor, ceiling=ceiling)
    return split_rows(weights_L.expand_as(available_BL), total_cells_B, lower_BL, upper_BL)
