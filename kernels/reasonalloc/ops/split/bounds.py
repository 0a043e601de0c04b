"""Bounds around the mean share: the robustification that layers and heads have in common."""

import torch
from torch import Tensor


def bounds_around_mean(
    total_R: Tensor, available_RN: Tensor, least_R: Tensor, *, floor: float, ceiling: float
) -> tuple[Tensor, Tensor]:
    """Bounds of a split that no share can starve or hog, and that is feasible.

    A share is at least ``max(floor * mean, least)`` and at most ``ceil(ceiling * mean)``, where mean
    is ``total / N``. What is not available cannot be given: both are clipped to it, and the lower one to
    the mean. Where clipping leaves less room than the total, the upper bounds give way to what is
    available, so that the split is feasible whenever ``sum(available) >= total``.

    Args:
        total_R: int64.
        available_RN: int64, most that each share can use.
        least_R: int64, lower bound in units.
        floor: Lower bound as a fraction of the mean share, at most 1.
        ceiling: Upper bound as a multiple of the mean share, at least 1.

    Returns:
        Lower and upper bounds, ``[R, N]`` int64.

    Raises:
        ValueError: ``floor`` or ``ceiling`` is out of range.
    """
    if not 0 <= floor <= 1 <= ceiling:
        raise ValueError(f"floor is {floor} and ceiling {ceiling}; give 0 <= floor <= 1 <= ceiling")
    count = available_RN.shape[1]
    total_R1 = total_R[:, None]
    mean_share_R1 = total_R1.double() / count
    lower_R1 = torch.maximum((mean_share_R1 * floor).floor().long(), least_R[:, None])
    lower_RN = torch.minimum(torch.minimum(lower_R1, total_R1 // count), available_RN)
    upper_RN = torch.minimum((mean_share_R1 * ceiling).ceil().long(), available_RN)
    too_tight_R1 = upper_RN.sum(dim=1, keepdim=True) < total_R1
    return lower_RN, torch.where(too_tight_R1, available_RN, upper_RN)
