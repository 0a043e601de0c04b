"""H2O (arXiv 2306.14048): half of the budget to the newest cells, half to those with most attention so far.

The statistic of a cell is the attention it got from every captured query since it was made, mean over the query heads
that share its kv head. Queries are captured before a round only, so of all queries it sees those.
"""

import torch

from reasonalloc.ops.observe import window_attention
from reasonalloc.scorers.base import Candidates, Scored, Scorer, Statistic, framed

WINDOW = 8
# Accumulated attention stays far below it, and float32 still tells neighbours above it apart.
RECENT_TIER = 1e6


def score(candidates: Candidates) -> Scored:
    """Accumulated attention; the newer half of the budget in a tier above it, the newest first."""
    c = candidates
    num_queries, width = c.queries_RWQD.shape[1], c.keys_RHND.shape[2]
    mean_RHN = window_attention(c.queries_RWQD, c.keys_RHND, c.lengths_RH, window=WINDOW, scope="causal", group="mean")
    assert c.statistic_RHN is not None, "whoever runs rounds keeps the statistic"
    statistic_RHN = c.statistic_RHN + num_queries * mean_RHN
    places_N = torch.arange(width, device=mean_RHN.device)
    recent_RHN = places_N >= c.lengths_RH[..., None] - c.budget // 2
    scores_RHN = torch.where(recent_RHN, RECENT_TIER + places_N, statistic_RHN)
    return Scored(scores_RHN=framed(scores_RHN, c.lengths_RH, WINDOW), statistic_RHN=statistic_RHN)


SCORER = Scorer(score=score, window=WINDOW, statistic=Statistic(what="attention received so far"))
