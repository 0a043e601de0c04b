"""SnapKV (arXiv 2404.14469) at decode time, as R-KV and ReasonAlloc compare with it: importance alone."""

from reasonalloc.ops.score import rkv_score
from reasonalloc.scorers.base import Candidates, Scored, Scorer, newest

WINDOW = 8


def score(candidates: Candidates) -> Scored:
    """Max-pooled attention of the window on each past key, length-free."""
    c = candidates
    queries = newest(c.queries_RWQD, WINDOW)
    return Scored(scores_RHN=rkv_score(queries, c.keys_RHND, c.lengths_RH, window=WINDOW, mix=1.0))


SCORER = Scorer(score=score, window=WINDOW)
