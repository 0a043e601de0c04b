"""R-KV (arXiv 2505.24133), section 3: importance against redundancy, lambda 0.1."""

from reasonalloc.ops.score import rkv_score
from reasonalloc.scorers.base import Candidates, Scored, Scorer

WINDOW = 8
MIX = 0.1


def score(candidates: Candidates) -> Scored:
    """See ``reasonalloc.ops.score.rkv_score``."""
    c = candidates
    return Scored(scores_RHN=rkv_score(c.queries_RWQD[:, -WINDOW:], c.keys_RHND, c.lengths_RH, window=WINDOW, mix=MIX))


SCORER = Scorer(score=score, window=WINDOW)
