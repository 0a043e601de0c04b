"""All rows at once. The search for the scale tries eight bit patterns of a float64 per step.

Sums are of integers and products of two float64 are exact to the last bit on every device, so the
result equals the pure Python definition exactly.
"""

import torch
from torch import Tensor

from reasonalloc.split import FRACTION_BITS, MAX_SCALE_BITS, MIN_RELATIVE_WEIGHT

_DIGIT_BITS = 3
_FLOAT_BITS = 63  # of a float64 without its sign


def split_rows(weights_RN: Tensor, total_R: Tensor, lower_RN: Tensor, upper_RN: Tensor) -> Tensor:
    """See ``reasonalloc.ops.split.split_rows``."""
    if weights_RN.shape[1] == 0:
        return torch.zeros_like(lower_RN)
    relative_RN = _relative_weights(weights_RN.double())
    low_RN = lower_RN.double()
    high_RN = torch.minimum(upper_RN, total_R[:, None]).double()
    scale_R = _largest_fitting_scale(relative_RN, total_R << FRACTION_BITS, low_RN, high_RN)
    shares_RN = _shares_at(scale_R[:, None], relative_RN, low_RN, high_RN)
    return _round_shares(shares_RN, total_R)


def _relative_weights(weights_RN: Tensor) -> Tensor:
    largest_R1 = weights_RN.amax(dim=1, keepdim=True)
    relative_RN = (weights_RN / largest_R1).clamp(min=MIN_RELATIVE_WEIGHT)
    return torch.where(largest_R1 == 0, 1.0, relative_RN)


def _shares_at(scale: Tensor, relative: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Fixed-point shares, ``FRACTION_BITS`` binary places."""
    clipped = torch.minimum(torch.maximum(scale * relative, low), high)
    return (clipped * (1 << FRACTION_BITS)).floor().long()


def _largest_fitting_scale(relative_RN: Tensor, target_R: Tensor, low_RN: Tensor, high_RN: Tensor) -> Tensor:
    """Largest float64 at which the shares of a row do not exceed its target, as ``[R]``."""
    digits = torch.arange(1 << _DIGIT_BITS, device=relative_RN.device)
    bits_R = torch.zeros_like(target_R)
    for shift in range(_FLOAT_BITS - _DIGIT_BITS, -1, -_DIGIT_BITS):
        scale_RE = (bits_R[:, None] | (digits << shift)).clamp(max=MAX_SCALE_BITS).view(torch.float64)
        shares_REN = _shares_at(scale_RE[:, :, None], relative_RN[:, None], low_RN[:, None], high_RN[:, None])
        # Digit 0 always fits and the sums are monotone, so the number that fit is the digit plus 1.
        digit_R = (shares_REN.sum(dim=2) <= target_R[:, None]).sum(dim=1) - 1
        bits_R = bits_R | (digit_R << shift)
    return bits_R.clamp(max=MAX_SCALE_BITS).view(torch.float64)


def _round_shares(shares_RN: Tensor, total_R: Tensor) -> Tensor:
    whole_RN = shares_RN >> FRACTION_BITS
    remainder_RN = shares_RN & ((1 << FRACTION_BITS) - 1)
    order_RN = remainder_RN.argsort(dim=1, descending=True, stable=True)
    rank_RN = torch.empty_like(order_RN).scatter_(
        1, order_RN, torch.arange(order_RN.shape[1], device=order_RN.device).expand_as(order_RN)
    )
    missing_R1 = (total_R - whole_RN.sum(dim=1))[:, None]
    return whole_RN + (rank_RN < missing_R1)
