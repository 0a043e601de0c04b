"""Mean cosines and their exemptions."""

import pytest
import torch

from reasonalloc.ops.redundancy import mean_cosine, reference


@pytest.mark.parametrize("width", [0, 1, 9, 65, 200])
@pytest.mark.parametrize("options", [{}, {"spare_first": True}, {"threshold": 0.95, "spare_first": True}])
def test_equals_the_reference(ragged, width, options):
    make = ragged(width)
    lengths = make.lengths(3, 2, width=width)
    keys = make.keys(lengths, width, 16)
    result = mean_cosine(keys, lengths, **options)
    torch.testing.assert_close(result, reference.mean_cosine(keys, lengths, **options), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("alike", [0.0, 0.7])
def test_other_dtypes_are_computed_in_float32(ragged, dtype, alike):
    make = ragged(1)
    lengths = torch.tensor([[150, 64], [1, 129]])
    keys = (make.keys(lengths, 150, 16) + alike).to(dtype)
    result = mean_cosine(keys, lengths)
    assert result.dtype is torch.float32
    torch.testing.assert_close(result, reference.mean_cosine(keys.float(), lengths), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", [mean_cosine, reference.mean_cosine])
def test_the_exemption_changes_the_matrix(ragged, path):
    """A released prototype lost it in an assignment to a copy, and nothing else told."""
    keys, lengths = ragged(1).keys(torch.tensor([[40]]), 40, 16), torch.tensor([[40]])
    unit = torch.nn.functional.normalize(keys[0, 0], dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(0)
    duplicates = cosines > 0.5
    assert duplicates.any(dim=1).sum() > 10
    last = torch.where(duplicates, torch.arange(40), -1).amax(dim=1)
    means, plain = path(keys, lengths)[0, 0], cosines.mean(dim=0)
    exempted = torch.zeros(40, dtype=torch.bool).index_fill_(0, last[last >= 0], True)
    assert (means[exempted] < plain[exempted] - 0.5 / 40 + 1e-6).all()
    torch.testing.assert_close(means[~exempted], plain[~exempted])


@pytest.mark.parametrize("path", [mean_cosine, reference.mean_cosine])
def test_released_code_spares_key_0_for_keys_like_no_other(path):
    keys = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 2.0]]).view(1, 1, 3, 2)
    lengths = torch.tensor([[3]])
    plain = path(keys, lengths, threshold=0.9)[0, 0]
    spared = path(keys, lengths, threshold=0.9, spare_first=True)[0, 0]
    torch.testing.assert_close(spared[1:], plain[1:])
    assert spared[0] == pytest.approx(0, abs=1e-6)
    assert plain[0] == pytest.approx((0.6 - 1 / 5**0.5) / 3, abs=1e-6)
