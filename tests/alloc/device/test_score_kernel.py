"""The kernels of the R-KV score."""

import pytest
import torch

from reasonalloc.ops.score import reference, rkv_score

WINDOW = 8


def make_inputs(make, width, heads=2, group=3, rows=2, head_dim=16):
    lengths = make.lengths(rows, heads, width=width)
    queries = make.normal(rows, WINDOW, heads * group, head_dim)
    return queries, make.keys(lengths, width, head_dim), lengths


def assert_like_reference(device, *inputs, tolerance=1e-4, **options):
    options = {"window": WINDOW} | options
    scores = rkv_score(*(value.to(device) for value in inputs), **options)
    expected = reference.rkv_score(*inputs, **options)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.cpu(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("width", "group"), [(0, 1), (1, 3), (8, 4), (9, 8), (63, 1), (130, 3), (70, 4)])
def test_equals_the_reference(ragged, device, width, group):
    assert_like_reference(device, *make_inputs(ragged(width + group), width, group=group))


@pytest.mark.parametrize(
    "options",
    [
        {"mix": 0.0},
        {"mix": 1.0},
        {"pool": 1},
        {"pool": 31},
        {"threshold": 0.0},
        {"threshold": 0.9},
        {"length_free": False},
        {"length_free": False, "spare_first": True},
        {"window": 1},
        {"window": 40},
    ],
)
def test_equals_the_reference_for_every_option(ragged, device, options):
    assert_like_reference(device, *make_inputs(ragged(1), 63), **options)


@pytest.mark.parametrize(("dtype", "head_dim"), [(torch.bfloat16, 96), (torch.float16, 20), (torch.float64, 64)])
def test_every_dtype_is_computed_in_float32(ragged, device, dtype, head_dim):
    queries, keys, lengths = make_inputs(ragged(3), 40, head_dim=head_dim)
    assert_like_reference(device, queries.to(dtype), keys.to(dtype), lengths)


def test_takes_views(ragged, device):
    queries, keys, lengths = make_inputs(ragged(4), 40)
    views = queries.transpose(1, 2).contiguous().transpose(1, 2), keys.mT.contiguous().mT, lengths.T.contiguous().T
    assert_like_reference(device, *views)


def test_keys_like_no_other_and_keys_that_are_all_alike(ragged, device):
    """A row without near-duplicates is searched to the first tile; one of copies stops at the newest."""
    queries, keys, _ = make_inputs(ragged(5), 130, head_dim=64)
    keys = keys.nan_to_num()
    keys[0, 0] = keys[0, 0, :1]
    keys[0, 1] = ragged(6).normal(130, 64)
    keys[0, 1, 5] = 0
    keys[1, 0, 3] = keys[1, 0, 4] = 50 * ragged(7).normal(64)
    assert_like_reference(device, queries, keys, torch.tensor([[130, 130], [65, 64]]), mix=0.0)


def test_large_logits_do_not_overflow(ragged, device):
    queries, keys, lengths = make_inputs(ragged(8), 40)
    assert_like_reference(device, queries * 100, keys * 100, lengths, mix=1.0)


def test_no_rows(ragged, device):
    inputs = [tensor[:0].to(device) for tensor in make_inputs(ragged(9), 9)]
    assert rkv_score(*inputs, window=WINDOW).shape == (0, 2, 9)
