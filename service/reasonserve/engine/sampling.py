"""Seeded sampling where SGLang's own needs kernels that a plain CPU does not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    noise = torch.empty(logprobs.shape, dtype=logprobs.dtype)  # on the CPU, so that any device draws the same
    for row, (s, p) in enumerate(zip(seed.tolist(), positions.tolist(), strict=True)):
        noise[row].exponential_(generator=torch.Generator().manual_seed(mix_seed(int(s), int(p))))
    return (logprobs - noise.log().to(logprobs.device)).argmax(dim=1, keepdim=True)


def sample_with_min_p(
    sample: Callable[..., Any],
    probs: torch.Tensor,
    top_ks: torch.Tensor,
    top_ps: torch.Tensor,
    min_ps: torch.Tensor,
    need_min_p_sampling: bool,
    sampling_seed: torch.Tensor | None,
    positions: torch.Tensor,
    **more: Any,
) -> Any:
    """Samples with min-p filtered beforehand, which SGLang's sampler refuses to do for seeded rows.

    The tokens that min-p removes are the least probable ones, so removing them first changes neither the rank nor
    the cumulative mass of any other; and a Gumbel-max draw needs no normalised weights.

    Args:
        sample: SGLang's sampler.
        probs: Probabilities. [B, V]
        top_ks: Most tokens kept. [B]
        top_ps: Nucleus mass. [B]
        min_ps: Least probability kept, as a share of the largest. [B]
        need_min_p_sampling: Whether any row has a ``min_p``.
        sampling_seed: Seeds. [B]
        positions: True positions. [B]
        more: Passed on.

    Returns:
        What ``sample`` does.
    """
    if need_min_p_sampling and sampling_seed is not None:
        least = probs.amax(dim=-1, keepdim=True) * min_ps.view(-1, 1)
        probs, need_min_p_sampling = probs.masked_fill(probs < least, 0.0), False
    return sample(probs, top_ks, top_ps, min_ps, need_min_p_sampling, sampling_seed, positions, **more)


def scale_repeated(logits: torch.Tensor, scaling_penalties: torch.Tensor) -> None:
    """Applies repetition penalties in place (CTRL, arXiv 1909.05858, equation 3, with negative logits multiplied).

    Args:
        logits: Logits. [B, V]
        scaling_penalties: Penalty of each token; 1 for those not seen. [B, V]
    """
    logits.copy_(torch.where(logits < 0, logits * scaling_penalties, logits / scaling_penalties))
