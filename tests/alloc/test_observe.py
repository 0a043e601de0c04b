"""Attention of the observation window."""

import math

import pytest
import torch

from reasonalloc.ops.observe import reference, window_attention

HEAD_DIM = 16
VARIANTS = [(scope, group) for scope in ("past", "causal") for group in ("max_logit", "max", "max_of_means", "mean")]


def make_inputs(make, width, heads=2, group=3, rows=2, num_queries=8):
    lengths = make.lengths(rows, heads, width=width)
    return make.normal(rows, num_queries, heads * group, HEAD_DIM), make.keys(lengths, width, HEAD_DIM), lengths


@pytest.mark.parametrize(("scope", "group"), VARIANTS)
@pytest.mark.parametrize(
    ("width", "size", "num_queries", "window"),
    [(0, 1, 8, 8), (1, 3, 8, 8), (33, 4, 16, 8), (70, 8, 3, 16), (40, 1, 1, 1)],
)
def test_equals_the_reference(ragged, scope, group, width, size, num_queries, window):
    inputs = make_inputs(ragged(width), width, group=size, num_queries=num_queries)
    options = {"window": window, "scope": scope, "group": group}
    attention = window_attention(*inputs, **options)
    assert attention.dtype == torch.float32
    torch.testing.assert_close(attention, reference.window_attention(*inputs, **options), rtol=1e-5, atol=1e-6)


def test_the_example_of_the_readme():
    queries = torch.tensor([math.log(3.0), 0.0]).view(1, 2, 1, 1)
    keys, lengths = torch.tensor([0.0, 1.0, 5.0, 5.0]).view(1, 1, 4, 1), torch.tensor([[4]])
    attention = window_attention(queries, keys, lengths, window=2)
    torch.testing.assert_close(attention, torch.tensor([[[3 / 8, 5 / 8, 0, 0]]]))


def test_a_query_sees_itself_and_what_was_before_it():
    """Two queries on three even keys: the first sees two of them, the second three."""
    queries, keys = torch.zeros(1, 2, 1, 4), torch.randn(1, 1, 3, 4)
    attention = window_attention(queries, keys, torch.tensor([[3]]), window=1, scope="causal", group="mean")
    torch.testing.assert_close(attention, torch.tensor([[[5 / 12, 5 / 12, 1 / 6]]]))


@pytest.mark.parametrize("options", [{"scope": "future"}, {"group": "min"}, {"window": 0}])
def test_options_that_do_not_exist_are_refused(ragged, options):
    with pytest.raises(ValueError, match=r"give (one of|at least)"):
        window_attention(*make_inputs(ragged(1), 9), **({"window": 8} | options))
