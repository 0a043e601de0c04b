"""What the attention benchmark compares: both sides attend to the same tokens."""

import pytest
import torch

from reasonalloc.ops.attend import reference
from reasonserve.bench import attention

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_a_compressed_request_holds_as_many_cells_as_a_dense_one():
    length = 256
    slots = torch.arange(1, 2 * length + 1).view(2, length).int()
    segments = attention._compressed(slots, torch.full((2,), length))
    owned = length - attention.PREFIX - attention.TAIL
    assert segments.owned_TLH.sum(-1).tolist() == [[owned * attention.HEADS]] * 2
    for row in range(2):
        cells = reference._cells(segments, row, 0, 0)
        cells += reference._cells(segments, row, 0, 1) + reference._cells(segments, row, 0, 2)
        expected = {slot * attention.HEADS + head for slot in slots[row].tolist() for head in range(attention.HEADS)}
        assert len(cells) == len(set(cells))
        assert set(cells) == expected


def test_dense_requests_attend_to_what_sglang_attends_to():
    length = 40
    slots = torch.arange(1, 2 * length + 1).view(2, length).int()
    segments = attention._dense(slots, torch.full((2,), length))
    assert reference._cells(segments, 1, 0, 2) == [slot * attention.HEADS + 2 for slot in slots[1].tolist()]
