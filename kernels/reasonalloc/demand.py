"""How much of the cache an attention row needs."""

import torch
from torch import Tensor

# Float32 weights add up to their decimal sum only to about this.
_TOLERANCE = 1e-6


def demand_of_rows(attention_QN: Tensor, rho: float) -> Tensor:
    """Smallest number of weights of each row whose sum reaches ``rho``.

    The demand metric of ReasonAlloc (arXiv 2606.11164), section 4.1. A row that never reaches
    ``rho`` needs all ``N``. Sums are compared to within 1e-6: ten weights of 0.1 reach 0.9 with nine.

    Args:
        attention_QN: Attention weights, non-negative, rows adding up to 1; anything that
            ``torch.as_tensor`` takes.
        rho: Share of the attention to cover, above 0 and at most 1.

    Returns:
        ``[Q]`` int64, 1 to ``N``; 0 where ``N`` is 0.

    Raises:
        ValueError: ``attention_QN`` has not two axes, or ``rho`` is out of range.
    """
    attention_QN = torch.as_tensor(attention_QN)
    if attention_QN.dim() != 2:
        raise ValueError(f"attention has shape {list(attention_QN.shape)}; give one axis of queries and one of keys")
    if not 0 < rho <= 1:
        raise ValueError(f"rho is {rho}; give a share above 0 and at most 1")
    covered_QN = attention_QN.double().sort(dim=1, descending=True).values.cumsum(dim=1)
    return ((covered_QN < rho - _TOLERANCE).sum(dim=1) + 1).clamp(max=attention_QN.shape[1])
