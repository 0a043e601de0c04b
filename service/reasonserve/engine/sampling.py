"""Seeded sampling where SGLang's own needs kernels that a plain CPU does not have."""

from __future__ import annotations

import torch

_MASK = (1 << 64) - 1


def mix_seed(seed: int, position: int) -> int:
    """Returns a 32-bit seed for one token: SplitMix64 (Steele et al., OOPSLA 2014) of seed and position, folded.

    torch's CPU generator reads 32 bits of a seed, so the high half is folded in.
    """
    z = (seed + (position + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    z ^= z >> 31
    return (z ^ (z >> 32)) & 0xFFFFFFFF


def multinomial_with_seed(logprobs: torch.Tensor, seed: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Samples one token per row; the same seed and position give the same draw in any batch.

    Gumbel-max: argmax of log p - log E with E ~ Exp(1).

    Args:
        logprobs: Log probabilities. [B, V]
        seed: Seed of each row. [B] int64
        positions: True position of each row. [B]

    Returns:
        Sampled indices. [B, 1]
    """
    noise = torch.empty_like(logprobs)
    for row, (s, p) in enumerate(zip(seed.tolist(), positions.tolist(), strict=True)):
        noise[row].exponential_(generator=torch.Generator().manual_seed(mix_seed(int(s), int(p))))
    return (logprobs - noise.log()).argmax(dim=1, keepdim=True)
