"""The kernel of the exact top-k."""

import pytest
import torch

from reasonalloc.ops.keep import keep_top, reference


def assert_like_reference(device, *arguments):
    keep = keep_top(*(argument.to(device) for argument in arguments))
    assert torch.equal(keep.cpu(), reference.keep_top(*arguments))


@pytest.mark.parametrize("width", [0, 1, 2, 63, 257])
@pytest.mark.parametrize("levels", [0, 1, 3])
def test_equals_the_reference(ragged, device, width, levels):
    make = ragged(width)
    lengths = make.lengths(2, 3, width=width)
    counts = (lengths * torch.rand(2, 3, generator=make.generator)).round().long()
    assert_like_reference(device, make.scores(lengths, width, levels), lengths, counts)


def test_lists_longer_than_a_step(ragged, device):
    make = ragged(1)
    lengths = make.lengths(1, 2, width=2100, least=2060)
    assert_like_reference(device, make.scores(lengths, 2100, 1), lengths, lengths // 3)


@pytest.mark.parametrize("seed", range(2))
def test_extreme_scores(ragged, device, seed):
    """Infinities, zeros of both signs, denormals and neighbours; every number of places."""
    least = 2.0**-149
    values = torch.tensor([-torch.inf, torch.inf, -0.0, 0.0, least, -least, 1.0, 1.0 + 2**-23, -1.0, -3e38, 3e38])
    scores = values[torch.randint(len(values), (1, 11, 10), generator=ragged(seed).generator)]
    assert_like_reference(device, scores, torch.full((1, 11), 10), torch.arange(11)[None])


def test_takes_views_and_empty_batches(ragged, device):
    make = ragged(0)
    lengths = make.lengths(2, 3, width=9)
    scores = make.scores(lengths, 9).transpose(0, 1).contiguous().transpose(0, 1)
    assert_like_reference(device, scores, lengths, lengths // 2)
    assert_like_reference(device, scores[:0], lengths[:0], lengths[:0])
