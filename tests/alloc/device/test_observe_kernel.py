"""The kernels of window attention and redundancy, and every scorer and head rule on top of them."""

from dataclasses import fields

import pytest
import torch

from reasonalloc.methods import SCORERS as NAMES
from reasonalloc.ops.observe import reference as observe_reference
from reasonalloc.ops.observe import window_attention
from reasonalloc.ops.redundancy import mean_cosine
from reasonalloc.ops.redundancy import reference as redundancy_reference
from reasonalloc.ops.route import adakv_heads, one_pass_heads
from reasonalloc.ops.route import reference as route_reference
from reasonalloc.scorers import SCORERS, Candidates, Centres, reference

VARIANTS = [(scope, group) for scope in ("past", "causal") for group in ("max_logit", "max", "max_of_means", "mean")]


def make_inputs(make, width, group=3, num_queries=8, head_dim=16):
    lengths = make.lengths(2, 2, width=width)
    return make.normal(2, num_queries, 2 * group, head_dim), make.keys(lengths, width, head_dim), lengths


def moved(device, inputs):
    return [value.to(device) for value in inputs]


@pytest.mark.parametrize(("scope", "group"), VARIANTS)
@pytest.mark.parametrize(("width", "size", "num_queries"), [(0, 1, 8), (9, 3, 16), (70, 4, 5), (65, 8, 1)])
def test_attention_equals_the_reference(ragged, device, scope, group, width, size, num_queries):
    inputs = make_inputs(ragged(width), width, group=size, num_queries=num_queries)
    options = {"window": 8, "scope": scope, "group": group}
    attention = window_attention(*moved(device, inputs), **options)
    expected = observe_reference.window_attention(*inputs, **options)
    torch.testing.assert_close(attention.cpu(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_of_16_bit_keys(ragged, device, dtype):
    queries, keys, lengths = make_inputs(ragged(1), 40, head_dim=20)
    inputs, options = (queries.to(dtype), keys.to(dtype), lengths), {"window": 8, "scope": "causal", "group": "max"}
    attention = window_attention(*moved(device, inputs), **options)
    expected = observe_reference.window_attention(*inputs, **options)
    torch.testing.assert_close(attention.cpu(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("width", "threshold"), [(1, 0.5), (65, 0.5), (65, 0.97)])
@pytest.mark.parametrize("spare_first", [False, True])
def test_redundancy_equals_the_reference(ragged, device, width, threshold, spare_first):
    _, keys, lengths = make_inputs(ragged(width), width)
    options = {"threshold": threshold, "spare_first": spare_first}
    means = mean_cosine(*moved(device, (keys, lengths)), **options)
    expected = redundancy_reference.mean_cosine(keys, lengths, **options)
    torch.testing.assert_close(means.cpu(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_scorers_equal_their_formulas(ragged, device, name):
    make = ragged(2)
    queries, keys, lengths = make_inputs(make, 66, num_queries=16)
    tensors = {
        "queries_RWQD": queries,
        "keys_RHND": keys,
        "values_RHND": make.normal(*keys.shape),
        "lengths_RH": lengths,
        "statistic_RHN": make.normal(2, 2, 66).abs(),
        "seeds_R": torch.tensor([3, -4]),
        "positions_R": torch.tensor([66, 5000]),
    }
    centres = make.centres(2, 6, 16)
    moved_centres = Centres(**{field.name: getattr(centres, field.name).to(device) for field in fields(centres)})
    on_device = Candidates(
        **{name: value.to(device) for name, value in tensors.items()}, budget=20, centres=moved_centres
    )
    scores = SCORERS[name].score(on_device).scores_RHN
    expected = reference.score(name, Candidates(**tensors, budget=20, centres=centres)).scores_RHN
    torch.testing.assert_close(scores.cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rule", ["adakv", "one-pass"])
def test_head_rules_equal_the_reference(ragged, device, rule):
    make = ragged(3)
    lengths = make.lengths(5, 3, width=40)
    scores, budget = make.scores(lengths, 40, levels=2), lengths.sum(dim=1) // 2
    run, expected, options = {
        "adakv": (adakv_heads, route_reference.adakv_heads, {}),
        "one-pass": (one_pass_heads, route_reference.one_pass_heads, {"min_cells": 4}),
    }[rule]
    counts = run(*moved(device, (scores, lengths, budget)), **options)
    assert torch.equal(counts.cpu(), expected(scores, lengths, budget, **options))
