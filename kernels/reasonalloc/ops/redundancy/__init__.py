"""How much each candidate says what others say too."""

import torch
from torch import Tensor

from reasonalloc.ops import launch
from reasonalloc.shapes import check_axes, check_dtype


def mean_cosine(
    keys_RHND: Tensor,
    lengths_RH: Tensor,
    *,
    threshold: float = 0.5,
    spare_first: bool = False,
) -> Tensor:
    """Mean cosine of each key to all others of its list, the newest near-duplicates exempt.

    R-KV (arXiv 2505.24133), section 3; README.md has the formula.

    Args:
        keys_RHND: Floating point, after RoPE, in order of true position. Computed in float32.
        lengths_RH: int64.
        threshold: Cosine above which two keys are near-duplicates.
        spare_first: Let a key without near-duplicates exempt key 0, as R-KV's released code does.

    Returns:
        ``[R, H, N]`` float32, zero on padding.

    Raises:
        ValueError: Shapes, dtypes or ranges are wrong.
    """
    check_axes(keys_RHND=keys_RHND, lengths_RH=lengths_RH)
    check_dtype(torch.int64, lengths_RH=lengths_RH)
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold is {threshold}; give 0 up to, not including, 1")
    if launch.use_kernel(keys_RHND.device):
        from reasonalloc.ops.redundancy import kernel

        return kernel.mean_cosine(keys_RHND, lengths_RH, threshold=threshold, spare_first=spare_first)
    from reasonalloc.ops.redundancy import compiled

    return compiled.mean_cosine(keys_RHND, lengths_RH, threshold=threshold, spare_first=spare_first)
