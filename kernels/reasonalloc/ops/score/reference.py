"""One head at a time, with the whole matrix of cosines."""

import math

import torch
from torch import Tensor

from reasonalloc.ops.redundancy.reference import mean_cosine_of_list


def rkv_score(
    queries_RWQD: Tensor,
    keys_RHND: Tensor,
    lengths_RH: Tensor,
    *,
    window: int,
    mix: float = 0.1,
    pool: int = 7,
    threshold: float = 0.5,
    length_free: bool = True,
    spare_first: bool = False,
) -> Tensor:
    """See ``reasonalloc.ops.score.rkv_score``."""
    rows, heads, width, _ = keys_RHND.shape
    group = queries_RWQD.shape[2] // heads
    scores_RHN = torch.full((rows, heads, width), -math.inf)
    for row in range(rows):
        for head in range(heads):
            length = int(lengths_RH[row, head])
            past = max(length - window, 0)
            scores_RHN[row, head, past:length] = math.inf
            if past == 0:
                continue
            keys_ND = keys_RHND[row, head, :length].float()
            queries_WGD = queries_RWQD[row, :, head * group : (head + 1) * group].float()
            importance = _max_pool(_importance(queries_WGD, keys_ND[:past]), pool)
            redundancy = mean_cosine_of_list(keys_ND, threshold, spare_first).softmax(dim=0)[:past]
            score = mix * importance - (1 - mix) * redundancy
            scores_RHN[row, head, :past] = score * past if length_free else score
    return scores_RHN


def _importance(queries_WGD: Tensor, keys_ND: Tensor) -> Tensor:
    """Attention of the window on each key, as ``[N]``."""
    logits_WGN = queries_WGD @ keys_ND.T / math.sqrt(keys_ND.shape[1])
    return logits_WGN.amax(dim=1).softmax(dim=1).mean(dim=0)


def _max_pool(values_N: Tensor, width: int) -> Tensor:
    reach = width // 2
    return torch.stack([values_N[max(at - reach, 0) : at + reach + 1].max() for at in range(len(values_N))])
