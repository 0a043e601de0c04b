"""The bounded split, batched over rows."""

import torch
from torch import Tensor

from reasonalloc.ops import launch
from reasonalloc.ops.split import vectorized
from reasonalloc.shapes import check_axes, check_dtype


def split_rows(weights_RN: Tensor, total_R: Tensor, lower_RN: Tensor, upper_RN: Tensor) -> Tensor:
    """Splits each row's total in proportion to its weights, within bounds.

    Gives the integers of ``reasonalloc.split.bounded_split`` on every row, which defines the
    operator. Values stay on the device and are not checked: rows must be feasible,
    ``sum(lower) <= total <= sum(upper)``, and weights finite and not negative. The result on other
    rows is unspecified.

    Args:
        weights_RN: Floating point; only ratios within a row matter. All zero counts as all equal.
        total_R: int64, 0 to ``2**31 - 1``.
        lower_RN: int64, least share, at least 0.
        upper_RN: int64, greatest share.

    Returns:
        ``[R, N]`` int64 shares; row ``r`` adds up to ``total_R[r]``.

    Raises:
        ValueError: Shapes or dtypes do not agree.
    """
    check_axes(weights_RN=weights_RN, total_R=total_R, lower_RN=lower_RN, upper_RN=upper_RN)
    check_dtype(torch.int64, total_R=total_R, lower_RN=lower_RN, upper_RN=upper_RN)
    if launch.use_kernel(weights_RN.device):
        from reasonalloc.ops.split import kernel

        return kernel.split_rows(weights_RN, total_R, lower_RN, upper_RN)
    return vectorized.split_rows(weights_RN, total_R, lower_RN, upper_RN)
