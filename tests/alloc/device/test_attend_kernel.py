"""Decode attention kernels."""

from dataclasses import replace

import pytest
import torch

from reasonalloc.ops.attend import attend_cells, attend_segments, attend_slots, reference

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def assert_like_reference(attend, device, *inputs, **options):
    expected = getattr(reference, attend.__name__)(*inputs, **options)
    out = attend(*(to(device, value) for value in inputs), **options)
    tolerance = TOLERANCE[expected.dtype]
    torch.testing.assert_close(out.cpu(), expected, rtol=tolerance, atol=tolerance)


def to(device, value):
    """Keeps strides, unlike a copy of a view."""
    if isinstance(value, torch.Tensor) and device.type != "cpu":
        copy = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)
        return copy.copy_(value)
    return replace(value, **moved(value, device)) if hasattr(value, "num_slots") else value


def moved(segments, device):
    tensors = {name: getattr(segments, name) for name in segments.__dataclass_fields__}
    return {name: to(device, value) for name, value in tensors.items()}


def pools(make, owned, *shape, dtype):
    """K and V, NaN where no request owns a cell."""
    return [make.normal(*owned.shape, *shape).masked_fill(~owned[(..., *[None] * len(shape))], torch.nan).to(dtype)
            for _ in range(2)]  # fmt: skip


def cells_inputs(make, heads, group, width, head_dim, dtype=torch.float32):
    lengths = make.lengths(3, heads, width=width)
    num_cells = lengths.numel() * width + 1
    cells = make.cells(lengths, width, num_cells)
    owned = torch.zeros(num_cells, dtype=torch.bool)
    owned[cells[cells >= 0]] = True
    queries = (make.normal(3, heads * group, head_dim) * 3).to(dtype)
    return queries, *pools(make, owned, head_dim, dtype=dtype), cells, lengths, head_dim**-0.5


def slots_inputs(make, heads, group, width, head_dim, dtype=torch.float32):
    lengths = make.lengths(3, width=width)
    slots = make.cells(lengths, width, lengths.numel() * width + 1)
    owned = torch.zeros(lengths.numel() * width + 1, dtype=torch.bool)
    owned[slots[slots >= 0]] = True
    queries = (make.normal(3, heads * group, head_dim) * 3).to(dtype)
    return queries, *pools(make, owned, heads, head_dim, dtype=dtype), slots, lengths, head_dim**-0.5


@pytest.mark.parametrize(("heads", "group", "width", "head_dim"), [
    (2, 1, 0, 16), (1, 3, 1, 64), (2, 4, 63, 96), (1, 8, 300, 20), (1, 3, 600, 128),
])  # fmt: skip
def test_cells_equal_the_reference(ragged, device, heads, group, width, head_dim):
    assert_like_reference(attend_cells, device, *cells_inputs(ragged(width), heads, group, width, head_dim))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("attend", "make_inputs"), [(attend_cells, cells_inputs), (attend_slots, slots_inputs)])
def test_half_precision(ragged, device, attend, make_inputs, dtype):
    assert_like_reference(attend, device, *make_inputs(ragged(1), 1, 3, 100, 64, dtype))


@pytest.mark.parametrize(("group", "width"), [(1, 63), (4, 300)])
def test_slots_equal_the_reference(ragged, device, group, width):
    assert_like_reference(attend_slots, device, *slots_inputs(ragged(2), 2, group, width, 32))


@pytest.mark.parametrize(("attend", "make_inputs"), [(attend_cells, cells_inputs), (attend_slots, slots_inputs)])
def test_takes_views(ragged, device, attend, make_inputs):
    queries, k, v, places, lengths, scale = make_inputs(ragged(3), 2, 3, 20, 16)
    wide = [torch.stack([tensor, tensor], dim=1)[:, 0] for tensor in (k, v)]
    turned = [tensor.mT.contiguous().mT for tensor in (queries, places)]
    apart = torch.stack([lengths, lengths], dim=-1)[..., 0]
    assert_like_reference(attend, device, turned[0], *wide, turned[1], apart, scale)


def test_no_requests(ragged, device):
    queries, k, v, cells, lengths, scale = cells_inputs(ragged(4), 2, 2, 5, 16)
    assert_like_reference(attend_cells, device, queries[:0], k, v, cells[:0], lengths[:0], scale)


def segments_inputs(make, segments, reached, group, head_dim, dtype=torch.float32):
    batch, heads = segments.prefix_B.shape[0], segments.owned_TLH.shape[2]
    queries = (make.normal(batch, heads * group, head_dim) * 3).to(dtype)
    return queries, *pools(make, reached, head_dim, dtype=dtype), segments


@pytest.mark.parametrize(("prefix", "owned", "tail", "group"), [
    ([5, 70, 0, 0], [63, 0, 0, 9], [3, 0, 0, 0], 3),
    ([0, 1], [1, 1], [1, 0], 8),
    ([300], [200], [40], 4),
    ([9, 0], [0, 0], [0, 0], 1),
])  # fmt: skip
def test_segments_equal_the_reference(ragged, device, prefix, owned, tail, group):
    make = ragged(len(owned))
    inputs = segments_inputs(make, *make.segments(prefix, owned, tail), group, 24)
    for layer in range(2):
        assert_like_reference(attend_segments, device, *inputs, layer=layer, scale=0.2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_segments_in_half_precision(ragged, device, dtype):
    make = ragged(8)
    inputs = segments_inputs(make, *make.segments([9, 3], [40, 0], [2, 0], heads=1), 4, 64, dtype)
    assert_like_reference(attend_segments, device, *inputs, layer=1, scale=0.125)


def test_segments_take_views(ragged, device):
    """And slots of 64 bits."""
    make = ragged(9)
    segments, reached = make.segments([9, 3], [40, 0], [2, 0], slots_dtype=torch.int64)
    views = {
        name: torch.stack([value, value], dim=-1)[..., 0]
        for name in segments.__dataclass_fields__
        if isinstance(value := getattr(segments, name), torch.Tensor)
    }
    inputs = segments_inputs(make, replace(segments, **views), reached, 2, 16)
    assert_like_reference(attend_segments, device, *inputs, layer=0, scale=0.2)
