"""Scorers on keys, values and queries of a real model: the sets that were held against the authors' code.

``tests/golden/scorers.npz`` holds the first 192 tokens of layers 2 and 21 of SmolLM2-135M-Instruct while it answers a
question (bfloat16 as int16), which 96 of them each scorer keeps, and the shipped profile's centres of queries.
docs/methods.md names the published revisions that kept the same sets, ties excepted.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

import reasonalloc
from reasonalloc.methods import SCORERS
from reasonalloc.ops.keep import keep_top
from reasonalloc.scorers import Centres

GOLDEN = Path(__file__).parents[1] / "golden" / "scorers.npz"
TOKENS, BUDGET, SEED = 192, 96, 5
LAYERS = (2, 21)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def tensors(golden, layer):
    names = (f"{name}_{layer}" for name in ("queries", "keys", "values"))
    return [torch.from_numpy(golden[name]).view(torch.bfloat16) for name in names]


def kept(scores):
    lengths = torch.full((1, scores.shape[0]), TOKENS)
    return keep_top(scores[None], lengths, torch.full_like(lengths, BUDGET))[0]


def scored(golden, name, layer):
    centres_RQNF = torch.from_numpy(golden[f"centres_{layer}"])[None].float()
    centres = Centres(
        frequencies_F=torch.from_numpy(golden["frequencies"]),
        centres_RQD=centres_RQNF[:, :, :2].flatten(2),
        spreads_RQF=centres_RQNF[:, :, 2],
    )
    return reasonalloc.score(name, *tensors(golden, layer), budget=BUDGET, seed=SEED, centres=centres)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", SCORERS)
def test_keeps_the_same_cells(golden, name, layer):
    """Another order of sums may swap cells whose scores are equal but for rounding, and no others."""
    scores = scored(golden, name, layer)
    now = kept(scores)
    then = torch.from_numpy(np.unpackbits(golden[f"kept_{name}_{layer}"], axis=1)).bool()
    assert (then.sum(dim=1) == BUDGET).all()
    threshold = scores.masked_fill(~now, torch.inf).amin(dim=1, keepdim=True)
    assert ((now == then) | ((scores - threshold).abs() <= 1e-4 * threshold.abs())).all()
    assert (now == then).float().mean() > 0.99


@pytest.mark.parametrize("layer", LAYERS)
def test_scorers_disagree(golden, layer):
    """No two methods are the same code under two names."""
    sets = {name: kept(scored(golden, name, layer)) for name in SCORERS}
    for one in SCORERS:
        for other in SCORERS:
            if one != other and {one, other} != {"rkv", "rkv-released"}:
                assert (sets[one] & ~sets[other]).sum() > 3, (one, other)
