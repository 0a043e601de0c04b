"""SnapKV (arXiv 2404.14469) at decode time, as R-KV and ReasonAlloc compare with it: importance alone."""

from reasonalloc.ops.score import rkv_score
from reasonalloc.scorers.base import Candidates, Scored, Scorer

WINDOW = 8


def score(candidates: Candidates) -> Scored:
    """Max-pooled attention of the window on each past key."""
    c = candidates
    return Scored(scores_RHN=rkv_score(c.queries_RWQD[:, -WINDOW:], c.keys_RHND, c.lengths_RH, window=WINDOW, mix=1.0))


SCORER = Scorer(score=score, window=WINDOW)
