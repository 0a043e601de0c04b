"""Decode attention over ragged lists."""

import pytest
import torch

from reasonalloc.ops.attend import attend_cells, attend_slots, reference

HEAD_DIM = 32
SCALE = HEAD_DIM**-0.5
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def make_cells(make, batch, heads, group, width, dtype=torch.float32):
    lengths = make.lengths(batch, heads, width=width)
    num_cells = lengths.numel() * width + 1
    cells = make.cells(lengths, width, num_cells)
    owned = torch.zeros(num_cells, dtype=torch.bool)
    owned[cells[cells >= 0]] = True
    k_pool, v_pool = (make.normal(num_cells, HEAD_DIM).masked_fill(~owned[:, None], torch.nan) for _ in range(2))
    queries = make.normal(batch, heads * group, HEAD_DIM) * 3
    return queries.to(dtype), k_pool.to(dtype), v_pool.to(dtype), cells, lengths, SCALE


def make_slots(make, batch, heads, group, width, dtype=torch.float32):
    lengths = make.lengths(batch, width=width)
    num_slots = lengths.numel() * width + 1
    slots = make.cells(lengths, width, num_slots)
    owned = torch.zeros(num_slots, dtype=torch.bool)
    owned[slots[slots >= 0]] = True
    k, v = (make.normal(num_slots, heads, HEAD_DIM).masked_fill(~owned[:, None, None], torch.nan) for _ in range(2))
    queries = make.normal(batch, heads * group, HEAD_DIM) * 3
    return queries.to(dtype), k.to(dtype), v.to(dtype), slots, lengths, SCALE


CASES = [(attend_cells, make_cells), (attend_slots, make_slots)]


def assert_like_reference(attend, inputs):
    expected = getattr(reference, attend.__name__)(*inputs)
    out = attend(*inputs)
    tolerance = TOLERANCE[expected.dtype]
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    return out


@pytest.mark.parametrize(("attend", "make_inputs"), CASES)
@pytest.mark.parametrize("width", [0, 1, 63, 300])
@pytest.mark.parametrize("group", [1, 3, 4, 8])
def test_equals_the_reference(ragged, attend, make_inputs, width, group):
    assert_like_reference(attend, make_inputs(ragged(width + group), 3, 2, group, width))


@pytest.mark.parametrize(("attend", "make_inputs"), CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_and_stays_half(ragged, attend, make_inputs, dtype):
    assert assert_like_reference(attend, make_inputs(ragged(0), 4, 3, 3, 100, dtype)).dtype == dtype


@pytest.mark.parametrize(("attend", "make_inputs"), CASES)
def test_a_list_without_places_gives_zero(ragged, attend, make_inputs):
    *tensors, lengths, scale = make_inputs(ragged(1), 2, 1, 2, 7)
    out = attend(*tensors, torch.zeros_like(lengths), scale)
    assert torch.equal(out, torch.zeros_like(out))


@pytest.mark.parametrize(("attend", "make_inputs"), CASES)
def test_no_requests(ragged, attend, make_inputs):
    queries, k, v, places, lengths, scale = make_inputs(ragged(2), 1, 2, 2, 5)
    assert attend(queries[:0], k, v, places[:0], lengths[:0], scale).shape == (0, 4, HEAD_DIM)


@pytest.mark.parametrize(("attend", "make_inputs"), CASES)
def test_takes_views(ragged, attend, make_inputs):
    queries, k, v, places, lengths, scale = make_inputs(ragged(3), 3, 2, 3, 20)
    wide = [torch.stack([tensor, tensor], dim=1)[:, 0] for tensor in (k, v)]
    turned = queries.mT.contiguous().mT
    assert_like_reference(attend, (turned, *wide, places.mT.contiguous().mT, lengths, scale))


def test_slots_are_cells_shared_by_all_heads(ragged):
    """Cell ids of one layer are ``slot * heads + head``."""
    queries, k, v, slots, lengths, scale = make_slots(ragged(4), 3, 2, 3, 20)
    cells = slots[:, None] * 2 + torch.arange(2)[:, None]
    by_cells = attend_cells(queries, k.flatten(0, 1), v.flatten(0, 1), cells, lengths[:, None].repeat(1, 2), scale)
    torch.testing.assert_close(attend_slots(queries, k, v, slots, lengths, scale), by_cells, rtol=1e-6, atol=1e-6)


def test_wrong_inputs_are_refused(ragged):
    queries, k, v, cells, lengths, scale = make_cells(ragged(5), 2, 2, 2, 5)
    with pytest.raises(ValueError, match="3 query heads over 2 kv heads"):
        attend_cells(queries[:, :3], k, v, cells, lengths, scale)
    with pytest.raises(ValueError, match=r"v_pool_CD is torch\.bfloat16; give torch\.float32"):
        attend_cells(queries, k, v.bfloat16(), cells, lengths, scale)
