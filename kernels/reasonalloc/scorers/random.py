"""Random Attention (arXiv 2609.03430): every past cell draws a number, each kv head on its own."""

from reasonalloc.draws import uniform
from reasonalloc.scorers.base import Candidates, Scored, Scorer, framed

WINDOW = 8


def score(candidates: Candidates) -> Scored:
    """Uniform draws."""
    c = candidates
    assert c.seeds_R is not None, "whoever runs rounds gives seeds"
    scores_RHN = uniform(c.seeds_R, *c.keys_RHND.shape[1:3])
    return Scored(scores_RHN=framed(scores_RHN, c.lengths_RH, WINDOW))


SCORER = Scorer(score=score, window=WINDOW, seeded=True)
