"""VaSE (arXiv 2606.03928): value range first, then a draw by attention.

Of a budget ``K`` without the window, a quarter of the budget goes to the cells with the largest range of values,
``max_d V - min_d V``, the first four cells before all others. The rest is drawn without replacement with
probabilities that are the window's attention, smoothed over five cells: the cells with the greatest
``log p + Gumbel noise``, which has the same distribution (Kool et al., ICML 2019).
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d

from reasonalloc.draws import uniform
from reasonalloc.ops.keep import keep_top
from reasonalloc.ops.observe import window_attention
from reasonalloc.scorers.base import Candidates, Scored, Scorer, framed, newest

WINDOW = 16
SINKS = 4
LARGE_SHARE = 4
SMOOTHING = 5
# log p + noise lies between -104 and 17, so these tiers never meet.
LARGE_TIER, SINK_TIER = 100.0, 200.0
_LEAST = torch.finfo(torch.float32).tiny


def score(candidates: Candidates) -> Scored:
    """Sinks above large ranges above the draw."""
    c = candidates
    rows, heads, width, _ = c.keys_RHND.shape
    assert c.seeds_R is not None, "whoever runs rounds gives seeds"
    queries = newest(c.queries_RWQD, WINDOW)
    weight_RHN = window_attention(queries, c.keys_RHND, c.lengths_RH, window=WINDOW, scope="past", group="mean")
    if width:
        weight_RHN = avg_pool1d(weight_RHN, SMOOTHING, stride=1, padding=SMOOTHING // 2)
    noise_RHN = -(-uniform(c.seeds_R, heads, width).log()).log()
    drawn_RHN = weight_RHN.clamp(min=_LEAST).log() + noise_RHN
    range_RHN = _ranges(c)
    large_RHN = _largest(range_RHN, c.lengths_RH, c.budget // LARGE_SHARE)
    first_RHN = (torch.arange(width, device=weight_RHN.device) < SINKS).expand(rows, heads, width)
    tier_RHN = torch.where(first_RHN, SINK_TIER, LARGE_TIER) + range_RHN / (1 + range_RHN)
    return Scored(scores_RHN=framed(torch.where(large_RHN, tier_RHN, drawn_RHN), c.lengths_RH, WINDOW))


def _ranges(candidates: Candidates) -> Tensor:
    """Range of each cell's value, ``[R, H, N]`` float32; of any value on padding, which may hold anything."""
    assert candidates.values_RHND is not None, "whoever runs rounds gives values"
    values = candidates.values_RHND.float()
    return (values.amax(dim=3) - values.amin(dim=3)).nan_to_num(0, 0, 0)


def _largest(range_RHN: Tensor, lengths_RH: Tensor, count: int) -> Tensor:
    """Marks the first cells and the largest ranges, ``count`` past cells in all."""
    past_RH = (lengths_RH - WINDOW).clamp(min=0)
    ranked_RHN = range_RHN.clone()
    ranked_RHN[:, :, :SINKS] = float("inf")
    return keep_top(ranked_RHN, past_RH, past_RH.clamp(max=count))


SCORER = Scorer(score=score, window=WINDOW, reads_values=True, seeded=True)
