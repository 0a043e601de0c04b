"""One head at a time, with the whole matrix of cosines."""

import torch
from torch import Tensor


def mean_cosine(
    keys_RHND: Tensor,
    lengths_RH: Tensor,
    *,
    threshold: float = 0.5,
    spare_first: bool = False,
) -> Tensor:
    """See ``reasonalloc.ops.redundancy.mean_cosine``."""
    means_RHN = torch.zeros(keys_RHND.shape[:3])
    for row in range(keys_RHND.shape[0]):
        for head in range(keys_RHND.shape[1]):
            length = int(lengths_RH[row, head])
            if length:
                keys_ND = keys_RHND[row, head, :length].float()
                means_RHN[row, head, :length] = mean_cosine_of_list(keys_ND, threshold, spare_first)
    return means_RHN


def mean_cosine_of_list(keys_ND: Tensor, threshold: float, spare_first: bool) -> Tensor:
    """Mean cosine of each key to the others, less the exempted pairs, as ``[N]``."""
    unit_ND = keys_ND / keys_ND.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1e-8)
    cosine_NN = unit_ND @ unit_ND.T
    cosine_NN.fill_diagonal_(0)
    for row_N in cosine_NN:
        duplicates = [at for at, cosine in enumerate(row_N.tolist()) if cosine > threshold]
        if duplicates or spare_first:
            row_N[duplicates[-1] if duplicates else 0] = 0
    return cosine_NN.mean(dim=0)
