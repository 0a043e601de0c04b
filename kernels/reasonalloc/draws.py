"""Random numbers that depend on what they are for, and on nothing else.

A counter-based generator: the number of a candidate follows from seed, kv head and place alone, so neither the batch
nor the width of the padding nor the device changes it. SplitMix64 (Steele et al., OOPSLA 2014) as the hash.
"""

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FACTORS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))
_MANTISSA_BITS = 23


def uniform(seeds_R: Tensor, heads: int, width: int) -> Tensor:
    """Numbers above 0 and below 1, one for each candidate.

    Args:
        seeds_R: int64 seed of each row; equal seeds draw equal numbers.
        heads: Kv heads H.
        width: Candidates N per head.

    Returns:
        ``[R, H, N]`` float32, of 2**23 evenly spaced values.
    """
    heads_H1 = torch.arange(heads, device=seeds_R.device)[:, None] << 32
    places_HN = heads_H1 + torch.arange(1, width + 1, device=seeds_R.device)
    bits_RHN = _mixed(_mixed(seeds_R * _GOLDEN)[:, None, None] + places_HN * _GOLDEN)
    # The half keeps numbers off 0 and 1; both sums are exact in float64, and so is their float32.
    top_RHN = _shifted(bits_RHN, 64 - _MANTISSA_BITS).double()
    return top_RHN.add(0.5).div(2**_MANTISSA_BITS).float()


def _mixed(z: Tensor) -> Tensor:
    for shift, factor in _FACTORS:
        z = (z ^ _shifted(z, shift)) * factor
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, by: int) -> Tensor:
    """Logical shift to the right; torch's is arithmetic."""
    return (z >> by) & ((1 << (64 - by)) - 1)
