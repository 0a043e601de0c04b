"""The public functions of layers and heads, and what every rule promises."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import reasonalloc
from reasonalloc import rules
from reasonalloc.errors import MethodError
from reasonalloc.methods import HEAD_RULES, LAYER_RULES
from reasonalloc.ops.route import adakv_heads, head_demand, one_pass_heads, reference
from reasonalloc.profile import PROFILE_RHOS, LayerProfile

WINDOW = 4


def profile_of(*demand):
    return LayerProfile(
        model_fingerprint="made up",
        model_name="none",
        num_layers=len(demand),
        num_kv_heads=2,
        demand=demand,
        demand_by_rho=dict.fromkeys(PROFILE_RHOS, demand),
        probes_digest="none",
        created="2026-01-01",
        tool_version="0",
    )


@st.composite
def layers(draw):
    """Scores of a layer's heads with ties and an infinite window, lengths and a feasible budget."""
    heads, width = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    lengths = torch.tensor(draw(st.lists(st.integers(0, width), min_size=heads, max_size=heads)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    scores = (torch.randn(heads, width, generator=generator) * draw(st.sampled_from([1, 2, 50]))).round() / 2
    scores.masked_fill_(torch.arange(width) >= lengths[:, None] - WINDOW, torch.inf)
    scores.masked_fill_(torch.arange(width) >= lengths[:, None], torch.nan)
    return scores, lengths, draw(st.integers(0, int(lengths.sum())))


def shares_of(scores):
    """A profile's shares for the heads at hand; ``profile`` alone reads them."""
    return torch.linspace(0.5, 1.5, len(scores))


@pytest.mark.parametrize("rule", HEAD_RULES)
@settings(max_examples=60, deadline=None)
@given(layer=layers())
def test_heads_get_the_layers_budget_within_what_they_have(rule, layer):
    scores, lengths, budget = layer
    counts = reasonalloc.route(rule, scores, budget, lengths=lengths, window=WINDOW, shares=shares_of(scores))
    assert counts.dtype == torch.int64
    assert int(counts.sum()) == budget
    assert (counts >= 0).all()
    assert (counts <= lengths).all()
    least = torch.minimum(torch.tensor(min(WINDOW, budget // len(lengths))), lengths)
    assert (counts >= least).all()


@pytest.mark.parametrize("rule", HEAD_RULES)
@settings(max_examples=30, deadline=None)
@given(layer=layers(), seed=st.integers(0, 99))
def test_the_order_of_heads_does_not_matter(rule, layer, seed):
    """Up to the one cell that rounding gives to the lower index."""
    scores, lengths, budget = layer
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed))
    counts = reasonalloc.route(rule, scores, budget, lengths=lengths, window=WINDOW, shares=shares_of(scores))
    permuted = reasonalloc.route(
        rule, scores[order], budget, lengths=lengths[order], window=WINDOW, shares=shares_of(scores)[order]
    )
    assert (counts[order] - permuted).abs().max() <= 1


@pytest.mark.parametrize("rule", [rule for rule in HEAD_RULES if rule not in ("uniform", "profile")])
@settings(max_examples=30, deadline=None)
@given(layer=layers())
def test_better_scores_never_lose_a_head_cells(rule, layer):
    scores, lengths, budget = layer
    assume(torch.isfinite(scores[0]).any())
    before = reasonalloc.route(rule, scores, budget, lengths=lengths, window=WINDOW, shares=shares_of(scores))
    better = torch.cat([scores[:1] + 3, scores[1:]])
    after = reasonalloc.route(rule, better, budget, lengths=lengths, window=WINDOW, shares=shares_of(scores))
    # Ties count for every head, so a head that breaks them may lose a cell to rounding.
    assert after[0] >= before[0] - 1


@settings(max_examples=60, deadline=None)
@given(layer=layers())
def test_head_rules_equal_their_references(layer):
    scores, lengths, budget = layer[0][None], layer[1][None], torch.tensor([layer[2]])
    expected = reference.adakv_heads(scores, lengths, budget)
    assert torch.equal(adakv_heads(scores, lengths, budget), expected)
    expected = reference.one_pass_heads(scores, lengths, budget, min_cells=WINDOW)
    assert torch.equal(one_pass_heads(scores, lengths, budget, min_cells=WINDOW), expected)
    lists = [row[:length].tolist() for row, length in zip(layer[0], layer[1].tolist(), strict=True)]
    assert head_demand(scores, lengths, budget)[0].tolist() == reference.demand_of_lists(lists, layer[2])


def test_adakv_mixes_a_fifth_evenly():
    """All of the best 20 lie in one of two heads: 0.8 * 20 + 0.2 * 10 = 18 of them, and 2, plus windows of 4."""
    scores = torch.stack([torch.rand(50) + 2, torch.rand(50)])
    scores[:, -4:] = torch.inf
    assert reasonalloc.route("adakv", scores, 28, window=4).tolist() == [22, 6]


def test_a_profile_shares_a_layer_within_bounds_whatever_the_scores():
    """Shares of 3 to 1 in one layer, and of 20 to 1, held at twice and at a quarter of the mean, in the other."""
    scores, shares = torch.rand(2, 4, 400), torch.tensor([[1.5, 0.5, 1.5, 0.5], [20.0, 1.0, 1.0, 1.0]])
    split = reasonalloc.route("profile", scores, torch.tensor([400, 400]), window=4, shares=shares)
    assert split.tolist() == [[150, 50, 150, 50], [200, 67, 67, 66]]
    assert torch.equal(split[0], reasonalloc.route("profile", scores[1], 400, window=4, shares=shares[0]))
    with pytest.raises(ValueError, match="has no shares of the heads; give a profile's"):
        reasonalloc.route("profile", scores, 400, window=4)


def test_one_pass_lets_a_share_pass_the_ceiling():
    """One of eight heads holds all of the best 800: clipped to 2 of 8 * 0.25, it is more than half of what is left."""
    scores = torch.rand(8, 800)
    scores[0] += 5
    assert reasonalloc.route("reasonalloc", scores, 800, window=4).tolist() == [200, *[86] * 5, *[85] * 2]
    assert reasonalloc.route("one-pass", scores, 800, window=4)[0] == 427


@pytest.mark.parametrize("rule", LAYER_RULES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_layers_get_the_requests_budget_within_what_they_have(rule, data):
    num_layers = data.draw(st.integers(1, 12))
    available = torch.tensor(data.draw(st.lists(st.integers(8, 60), min_size=num_layers, max_size=num_layers)))
    budget = data.draw(st.integers(0, int(available.sum())))
    demand = data.draw(st.lists(st.floats(0.01, 50), min_size=num_layers, max_size=num_layers))
    scores = torch.rand(num_layers, 2, 30, generator=torch.Generator().manual_seed(num_layers)) - 0.3
    split = reasonalloc.layer_budgets(
        rule, budget, profile_of(*demand), available=available, window_cells=8, scores=scores
    )
    assert int(split.sum()) == budget
    assert (split <= available).all()
    assert (split >= min(8, budget // num_layers)).all()


def test_a_pyramid_is_that_of_the_paper():
    """beta 20: the shares without the window fall from 1.95 of the mean to 0.05 in even steps."""
    split = reasonalloc.layer_budgets("pyramid", 4 * 128, None, num_layers=4, window_cells=8) - 8
    assert split.tolist() == [round(120 * share) for share in (1.95, 1.95 - 1.9 / 3, 0.05 + 1.9 / 3, 0.05)]


def test_a_wave_follows_the_profile_within_its_bounds():
    profile = profile_of(100.0, 1.0, 25.0, 1.0)
    split = reasonalloc.layer_budgets("wave", 4000, profile)
    assert split.tolist() == [2000, 400, 1200, 400] or int(split.max()) == 2000
    assert int(split.min()) >= 250
    ratios = split.double() / torch.tensor(profile.layer_weights())
    assert ratios[1] == pytest.approx(float(ratios[3]))


def test_entropy_counts_even_layers_for_more():
    even, peaked = torch.ones(1, 2, 50), torch.zeros(1, 2, 50)
    peaked[0, 0, 3] = 1
    lengths = torch.full((3, 2), 50)
    half = torch.cat([torch.ones(1, 1, 50), torch.zeros(1, 1, 50)], dim=1)
    weights = rules.entropy_weights(torch.cat([even, peaked, half]), lengths)
    assert weights.tolist() == pytest.approx([1, 0, math.log(50) / math.log(100)], abs=1e-6)


def test_what_cannot_be_done_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="the layer rule wave has no profile of the model; give one"):
        reasonalloc.layer_budgets("wave", 100, None, num_layers=3)
    with pytest.raises(ValueError, match="give the scores of this round"):
        reasonalloc.layer_budgets("entropy", 100, None, num_layers=3)
    with pytest.raises(MethodError, match="layer rule is 'tide'; give one of uniform"):
        reasonalloc.layer_budgets("tide", 100, None, num_layers=3)
    with pytest.raises(MethodError, match="head rule is 'heads'; give one of uniform"):
        reasonalloc.route("heads", torch.rand(2, 9), 4)
    with pytest.raises(MethodError, match="scorer is 'r-kv'; give one of rkv"):
        reasonalloc.score("r-kv", torch.rand(1, 2, 4), torch.rand(2, 9, 4), torch.rand(2, 9, 4))
