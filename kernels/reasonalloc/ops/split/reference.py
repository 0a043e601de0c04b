"""The definition, row by row."""

import torch
from torch import Tensor

from reasonalloc.split import bounded_split


def split_rows(weights_RN: Tensor, total_R: Tensor, lower_RN: Tensor, upper_RN: Tensor) -> Tensor:
    """See ``reasonalloc.ops.split.split_rows``; raises on infeasible rows."""
    shares_RN = torch.zeros_like(lower_RN)
    for row in range(weights_RN.shape[0]):
        shares = bounded_split(
            weights_RN[row].tolist(), int(total_R[row]), lower_RN[row].tolist(), upper_RN[row].tolist()
        )
        shares_RN[row] = torch.tensor(shares, dtype=torch.int64)
    return shares_RN
