"""One head at a time, by sorting."""

import torch
from torch import Tensor


def keep_top(scores_RHN: Tensor, lengths_RH: Tensor, counts_RH: Tensor) -> Tensor:
    """See ``reasonalloc.ops.keep.keep_top``."""
    rows, heads, _ = scores_RHN.shape
    keep_RHN = torch.zeros_like(scores_RHN, dtype=torch.bool)
    for row in range(rows):
        for head in range(heads):
            scores = scores_RHN[row, head, : int(lengths_RH[row, head])].tolist()
            best_last = sorted((score, position) for position, score in enumerate(scores))
            first_kept = len(scores) - int(counts_RH[row, head])
            for _, position in best_last[first_kept:]:
                keep_RHN[row, head, position] = True
    return keep_RHN
