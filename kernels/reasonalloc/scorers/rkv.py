"""R-KV (arXiv 2505.24133), section 3: importance against redundancy.

``SCORER`` is the paper's, lambda 0.1, with scores that compare over heads. ``RELEASED`` is the authors' code: lambda
0.07, key 0 spared by rows without near-duplicates, and scores that shrink with the length of a list.
"""

from reasonalloc.ops.score import rkv_score
from reasonalloc.scorers.base import Candidates, Scored, Scorer, newest

WINDOW = 8
MIX, RELEASED_MIX = 0.1, 0.07


def score(candidates: Candidates) -> Scored:
    """``0.1 * importance - 0.9 * redundancy``, length-free."""
    c = candidates
    queries = newest(c.queries_RWQD, WINDOW)
    return Scored(scores_RHN=rkv_score(queries, c.keys_RHND, c.lengths_RH, window=WINDOW, mix=MIX))


def score_as_released(candidates: Candidates) -> Scored:
    """``0.07 * importance - 0.93 * redundancy``, as the released code computes both."""
    c = candidates
    scores_RHN = rkv_score(
        newest(c.queries_RWQD, WINDOW),
        c.keys_RHND,
        c.lengths_RH,
        window=WINDOW,
        mix=RELEASED_MIX,
        length_free=False,
        spare_first=True,
    )
    return Scored(scores_RHN=scores_RHN)


SCORER = Scorer(score=score, window=WINDOW)
RELEASED = Scorer(score=score_as_released, window=WINDOW)
