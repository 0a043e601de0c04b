"""Which candidates a head keeps."""

import torch
from torch import Tensor

from reasonalloc.ops import launch
from reasonalloc.ops.keep import vectorized
from reasonalloc.shapes import check_axes, check_dtype


def keep_top(scores_RHN: Tensor, lengths_RH: Tensor, counts_RH: Tensor) -> Tensor:
    """Marks the highest scores of each head, exactly as many as it may keep.

    Ties go to the later position: ``keep_top([[[3, 1, 3, 3]]], [[4]], [[2]])`` marks the last two.

    Args:
        scores_RHN: float32, no NaN within lengths.
        lengths_RH: int64.
        counts_RH: int64, 0 to ``lengths_RH``.

    Returns:
        ``[R, H, N]`` bool, false on padding.

    Raises:
        ValueError: Shapes or dtypes do not agree.
    """
    check_axes(scores_RHN=scores_RHN, lengths_RH=lengths_RH, counts_RH=counts_RH)
    check_dtype(torch.float32, scores_RHN=scores_RHN)
    check_dtype(torch.int64, lengths_RH=lengths_RH, counts_RH=counts_RH)
    if launch.use_kernel(scores_RHN.device):
        from reasonalloc.ops.keep import kernel

        return kernel.keep_top(scores_RHN, lengths_RH, counts_RH)
    return vectorized.keep_top(scores_RHN, lengths_RH, counts_RH)
