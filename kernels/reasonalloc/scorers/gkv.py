"""G-KV (arXiv 2512.00504): attention remembered over rounds, against redundancy.

With ``S`` the window's attention and ``R`` the softmax of the mean cosines, both over their maximum in the head:

    F_t = max(0.8 * F_{t-1}, S_t)         a cell that is new starts with S_t
    Z   = 0.5 * F_t - 0.5 * R
"""

import torch
from torch import Tensor

from reasonalloc.ops.observe import window_attention
from reasonalloc.ops.redundancy import mean_cosine
from reasonalloc.scorers.base import Candidates, Scored, Scorer, Statistic, framed, newest
from reasonalloc.shapes import valid_mask

WINDOW = 16
DECAY = 0.8
MIX = 0.5
_LEAST = torch.finfo(torch.float32).tiny


def score(candidates: Candidates) -> Scored:
    """``Z``, and ``F_t`` as the statistic; in the window ``F`` stays as it is."""
    c = candidates
    width = c.keys_RHND.shape[2]
    past_RHN, valid_RHN = valid_mask(c.lengths_RH - WINDOW, width), valid_mask(c.lengths_RH, width)
    queries = newest(c.queries_RWQD, WINDOW)
    attention_RHN = window_attention(queries, c.keys_RHND, c.lengths_RH, window=WINDOW, scope="causal", group="max")
    attention_RHN = _over_maximum(attention_RHN.masked_fill(~past_RHN, 0))
    assert c.statistic_RHN is not None, "whoever runs rounds keeps the statistic"
    statistic_RHN = torch.where(past_RHN, torch.maximum(DECAY * c.statistic_RHN, attention_RHN), c.statistic_RHN)
    cosine_RHN = mean_cosine(c.keys_RHND, c.lengths_RH).masked_fill(~valid_RHN, float("-inf"))
    redundancy_RHN = _over_maximum(cosine_RHN.softmax(dim=2).masked_fill(~past_RHN, 0))
    scores_RHN = MIX * statistic_RHN - (1 - MIX) * redundancy_RHN
    return Scored(scores_RHN=framed(scores_RHN, c.lengths_RH, WINDOW), statistic_RHN=statistic_RHN)


def _over_maximum(values_RHN: Tensor) -> Tensor:
    if values_RHN.shape[2] == 0:
        return values_RHN
    return values_RHN / values_RHN.amax(dim=2, keepdim=True).clamp(min=_LEAST)


SCORER = Scorer(score=score, window=WINDOW, statistic=Statistic(what="greatest attention so far, decayed by round"))
