"""Key norms (arXiv 2406.11430): keys of small norm are attended to most."""

from reasonalloc.scorers.base import Candidates, Scored, Scorer, framed

WINDOW = 8


def score(candidates: Candidates) -> Scored:
    """The key's L2 norm, negated."""
    norms_RHN = candidates.keys_RHND.float().norm(dim=3)
    return Scored(scores_RHN=framed(-norms_RHN, candidates.lengths_RH, WINDOW))


SCORER = Scorer(score=score, window=WINDOW)
