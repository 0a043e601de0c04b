"""Exact top-k per head."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonalloc.ops.keep import keep_top, reference


@pytest.mark.parametrize("width", [0, 1, 2, 63, 257])
@pytest.mark.parametrize("levels", [0, 1, 3])
def test_equals_the_reference(ragged, width, levels):
    make = ragged(width)
    lengths = make.lengths(3, 4, width=width)
    scores = make.scores(lengths, width, levels)
    counts = (lengths * torch.rand(3, 4, generator=make.generator)).round().long()
    keep = keep_top(scores, lengths, counts)
    assert torch.equal(keep, reference.keep_top(scores, lengths, counts))
    assert torch.equal(keep.sum(dim=2), counts)


@given(st.lists(st.sampled_from([-torch.inf, -1.0, -0.0, 0.0, 2.0, torch.inf]), max_size=9), st.data())
@settings(deadline=None, max_examples=200)
def test_ties_go_to_the_later_position(scores, data):
    length = data.draw(st.integers(0, len(scores)))
    count = data.draw(st.integers(0, length))
    scores_RHN = torch.tensor(scores, dtype=torch.float32).view(1, 1, -1)
    arguments = scores_RHN, torch.tensor([[length]]), torch.tensor([[count]])
    assert torch.equal(keep_top(*arguments), reference.keep_top(*arguments))


def test_examples():
    scores = torch.tensor([[[3.0, 1.0, 3.0, 3.0, torch.nan]]])
    keep = keep_top(scores, torch.tensor([[4]]), torch.tensor([[2]]))
    assert keep.tolist() == [[[False, False, True, True, False]]]


def test_takes_views_and_empty_batches(ragged):
    make = ragged(0)
    lengths = make.lengths(2, 3, width=9)
    scores = make.scores(lengths, 9).transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(keep_top(scores, lengths, lengths // 2), reference.keep_top(scores, lengths, lengths // 2))
    assert keep_top(scores[:0], lengths[:0], lengths[:0]).shape == (0, 3, 9)


def test_wrong_shapes_and_dtypes_are_refused():
    scores, lengths = torch.zeros(1, 2, 3), torch.ones(1, 2).long()
    with pytest.raises(ValueError, match="counts_RH has shape"):
        keep_top(scores, lengths, lengths[:, :1])
    with pytest.raises(ValueError, match=r"scores_RHN is torch\.float64; give torch\.float32"):
        keep_top(scores.double(), lengths, lengths)
