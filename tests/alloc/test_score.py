"""The R-KV score."""

import pytest
import torch

from reasonalloc.ops.score import reference, rkv_score

HEAD_DIM, WINDOW = 16, 8


def make_inputs(make, width, heads=3, group=3, rows=3):
    lengths = make.lengths(rows, heads, width=width)
    queries = make.normal(rows, WINDOW, heads * group, HEAD_DIM)
    return queries, make.keys(lengths, width, HEAD_DIM), lengths


def assert_same_scores(scores, expected, tolerance=1e-5):
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, rtol=tolerance, atol=tolerance, equal_nan=False)


@pytest.mark.parametrize("width", [0, 1, 8, 9, 63, 130])
@pytest.mark.parametrize("group", [1, 3, 4, 8])
def test_equals_the_reference(ragged, width, group):
    inputs = make_inputs(ragged(width + group), width, heads=2, group=group)
    assert_same_scores(rkv_score(*inputs, window=WINDOW), reference.rkv_score(*inputs, window=WINDOW))


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
def test_equals_the_reference_for_every_option(ragged, options):
    options = {"window": WINDOW} | options
    inputs = make_inputs(ragged(1), 63)
    assert_same_scores(rkv_score(*inputs, **options), reference.rkv_score(*inputs, **options))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(ragged, dtype):
    queries, keys, lengths = make_inputs(ragged(3), 40)
    queries, keys = queries.to(dtype), keys.to(dtype)
    expected = rkv_score(queries.float(), keys.float(), lengths, window=WINDOW)
    assert_same_scores(rkv_score(queries, keys, lengths, window=WINDOW), expected, tolerance=0)


def test_takes_views_and_changes_nothing(ragged):
    queries, keys, lengths = make_inputs(ragged(4), 40)
    views = queries.transpose(1, 2).contiguous().transpose(1, 2), keys.mT.contiguous().mT, lengths.T.contiguous().T
    copies = [view.clone() for view in views]
    assert_same_scores(rkv_score(*views, window=WINDOW), reference.rkv_score(queries, keys, lengths, window=WINDOW))
    for view, copy in zip(views, copies, strict=True):
        torch.testing.assert_close(view, copy, rtol=0, atol=0, equal_nan=True)


def test_a_zero_key_is_like_no_other(ragged):
    queries, keys, lengths = make_inputs(ragged(9), 20)
    keys[0, 0, 5] = 0
    expected = reference.rkv_score(queries, keys, lengths, window=WINDOW, mix=0.0)
    assert_same_scores(rkv_score(queries, keys, lengths, window=WINDOW, mix=0.0), expected)


def test_no_rows(ragged):
    inputs = [tensor[:0] for tensor in make_inputs(ragged(5), 9)]
    assert rkv_score(*inputs, window=WINDOW).shape == (0, 3, 9)


def test_the_last_near_duplicate_is_exempt():
    """Keys 0, 1 and 3 are one direction, key 2 another: 3 is exempted by 0 and 1, 1 by 3."""
    keys = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, -1.0]]).view(1, 1, 5, 2)
    queries, lengths = torch.zeros(1, 1, 1, 2), torch.tensor([[5]])
    scores = rkv_score(queries, keys, lengths, window=1, mix=0.0, length_free=False)
    sums = torch.tensor([2.0, 1.0, -1.0, 0.0, -1.0])
    assert_same_scores(scores[0, 0, :4], -(sums / 5).softmax(dim=0)[:4])


def test_the_first_key_has_no_privilege():
    """A key without near-duplicates exempts nobody; the released code then spares key 0."""
    keys = torch.tensor([[1.0, 0.0], [0.9, 1.0], [1.0, 0.1], [-1.0, 2.0]]).view(1, 1, 4, 2)
    queries, lengths = torch.zeros(1, 1, 1, 2), torch.tensor([[4]])
    unit = torch.nn.functional.normalize(keys[0, 0], dim=1)
    sums = (unit @ unit.T).fill_diagonal_(0).sum(dim=0)
    for score in (rkv_score, reference.rkv_score):
        scores = score(queries, keys, lengths, window=1, mix=0.0, threshold=0.999, length_free=False)
        assert_same_scores(scores[0, 0, :3], -(sums / 4).softmax(dim=0)[:3])


def test_length_free_scores_of_unequal_lists_compare(ragged):
    """Both lists get even attention: raw scores tell only their lengths, length-free ones are equal."""
    keys = ragged(6).normal(1, 2, 64, HEAD_DIM)
    queries, lengths = torch.zeros(1, 1, 2, HEAD_DIM), torch.tensor([[32, 64]])
    options = {"window": 1, "mix": 1.0}
    raw = rkv_score(queries, keys, lengths, **options, length_free=False)[0, :, 0]
    free = rkv_score(queries, keys, lengths, **options)[0, :, 0]
    assert raw.tolist() == pytest.approx([1 / 31, 1 / 63])
    assert free.tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 0}, "window of 0"),
        ({"mix": 1.5}, r"mix is 1\.5"),
        ({"pool": 4}, "pool is 4"),
        ({"threshold": 1.0}, r"threshold is 1\.0"),
    ],
)
def test_options_out_of_range_are_refused(ragged, options, words):
    with pytest.raises(ValueError, match=words):
        rkv_score(*make_inputs(ragged(7), 9), **({"window": WINDOW} | options))


def test_query_heads_that_do_not_divide_are_refused(ragged):
    queries, keys, lengths = make_inputs(ragged(8), 9)
    with pytest.raises(ValueError, match="8 query heads over 3 kv heads"):
        rkv_score(queries[:, :, :8], keys, lengths, window=WINDOW)
