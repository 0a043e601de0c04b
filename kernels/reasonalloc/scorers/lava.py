"""LAVa (arXiv 2509.09754): attention times the largest value of the head.

    s_j = maxpool7( max_g mean_t a_tgj ) * max_i |V_i|_1          i: past cells of the head

Each query head's attention is a causal softmax; pooling and the greatest of the query heads may be swapped.
"""

from torch.nn.functional import max_pool1d

from reasonalloc.ops.observe import window_attention
from reasonalloc.scorers.base import Candidates, Scored, Scorer, framed, newest
from reasonalloc.shapes import valid_mask

WINDOW = 16
POOL = 7


def score(candidates: Candidates) -> Scored:
    """Pooled attention of the window times the head's greatest L1 norm of a value."""
    c = candidates
    width = c.keys_RHND.shape[2]
    past_RHN = valid_mask(c.lengths_RH - WINDOW, width)
    attention_RHN = window_attention(
        newest(c.queries_RWQD, WINDOW), c.keys_RHND, c.lengths_RH, window=WINDOW, scope="causal", group="max_of_means"
    ).masked_fill(~past_RHN, 0)
    if width == 0:
        return Scored(scores_RHN=attention_RHN)
    pooled_RHN = max_pool1d(attention_RHN, POOL, stride=1, padding=POOL // 2)
    assert c.values_RHND is not None, "whoever runs rounds gives values"
    norms_RHN = c.values_RHND.float().abs().sum(dim=3).masked_fill(~past_RHN, 0)
    scores_RHN = pooled_RHN * norms_RHN.amax(dim=2, keepdim=True)
    return Scored(scores_RHN=framed(scores_RHN, c.lengths_RH, WINDOW))


SCORER = Scorer(score=score, window=WINDOW, reads_values=True)
