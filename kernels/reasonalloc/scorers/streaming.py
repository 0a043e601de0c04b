"""StreamingLLM (arXiv 2309.17453): the first four cells and the newest ones."""

import torch

from reasonalloc.scorers.base import Candidates, Scored, Scorer, framed

WINDOW = 8
SINKS = 4
SINK_TIER = 1e9


def score(candidates: Candidates) -> Scored:
    """The place in the list; the first four above all."""
    places_N = torch.arange(candidates.keys_RHND.shape[2], device=candidates.keys_RHND.device, dtype=torch.float32)
    scores_N = torch.where(places_N < SINKS, SINK_TIER, places_N)
    lengths_RH = candidates.lengths_RH
    return Scored(scores_RHN=framed(scores_N.expand(*lengths_RH.shape, -1), lengths_RH, WINDOW))


SCORER = Scorer(score=score, window=WINDOW)
