"""Decode attention over prefix slots, owned cells and tail slots."""

from dataclasses import replace

import pytest
import torch

from reasonalloc.ops.attend import attend_cells, attend_segments, attend_slots, reference

HEAD_DIM, SCALE = 16, 0.25


def make_inputs(make, prefix, owned, tail, group=3):
    segments, reached = make.segments(prefix, owned, tail)
    k, v = (make.normal(len(reached), HEAD_DIM).masked_fill(~reached[:, None], torch.nan) for _ in range(2))
    queries = make.normal(len(owned), segments.owned_TLH.shape[2] * group, HEAD_DIM) * 3
    return queries, k, v, segments


SHAPES = [
    ([5, 70, 0, 0], [63, 0, 0, 9], [3, 0, 0, 0]),
    ([0, 1], [1, 1], [1, 0]),
    ([9, 0], [0, 0], [0, 0]),
]


@pytest.mark.parametrize(("prefix", "owned", "tail"), SHAPES)
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("group", [1, 4])
def test_equals_the_reference(ragged, prefix, owned, tail, layer, group):
    inputs = make_inputs(ragged(len(owned)), prefix, owned, tail, group)
    expected = reference.attend_segments(*inputs, layer=layer, scale=SCALE)
    out = attend_segments(*inputs, layer=layer, scale=SCALE)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_no_table_is_needed_while_nobody_was_compressed(ragged):
    """All prefix: the same as attending over slots."""
    queries, k, v, segments = make_inputs(ragged(1), [9, 4], [0, 0], [0, 0])
    none = replace(segments, cells_TLHK=segments.cells_TLHK[:0], owned_TLH=segments.owned_TLH[:0])
    k_SHD, v_SHD = (pool.view(2, segments.num_slots, 2, HEAD_DIM)[1] for pool in (k, v))
    slots = segments.slots_RN[segments.slot_rows_B].long()
    expected = attend_slots(queries, k_SHD, v_SHD, slots, segments.prefix_B, SCALE)
    out = attend_segments(queries, k, v, none, layer=1, scale=SCALE)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)


def test_owned_cells_alone_are_a_list_of_cells(ragged):
    queries, k, v, segments = make_inputs(ragged(2), [0, 0], [8, 20], [0, 0])
    cells = segments.cells_TLHK[segments.table_rows_B, 0]
    expected = attend_cells(queries, k, v, cells, segments.owned_TLH[segments.table_rows_B, 0], SCALE)
    out = attend_segments(queries, k, v, segments, layer=0, scale=SCALE)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({}, {"layer": 2}, "layer is 2; give 0 to 1"),
        ({"num_slots": 5}, {"layer": 0}, "2 layers of 5 slots and 2 heads are not the pool's"),
        ({"prefix_B": torch.zeros(3).long()}, {"layer": 0}, "prefix_B has shape"),
        ({"slots_RN": torch.zeros(4, 9)}, {"layer": 0}, r"slots_RN is torch\.float32; give torch\.int32"),
    ],
)
def test_wrong_inputs_are_refused(ragged, change, options, words):
    queries, k, v, segments = make_inputs(ragged(3), [5, 4], [3, 0], [2, 0])
    with pytest.raises(ValueError, match=words):
        attend_segments(queries, k, v, replace(segments, **change), scale=SCALE, **options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_and_stays_half(ragged, dtype):
    queries, k, v, segments = make_inputs(ragged(4), [5, 700, 0], [63, 0, 9], [3, 0, 2])
    inputs = queries.to(dtype), k.to(dtype), v.to(dtype), segments
    out = attend_segments(*inputs, layer=1, scale=SCALE)
    assert out.dtype == dtype
    tolerance = {torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    expected = reference.attend_segments(*inputs, layer=1, scale=SCALE)
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)


def test_an_output_is_the_same_bit_for_bit_in_any_batch(ragged):
    """Long lists are cut by their own length, whoever else is there and however many threads share the work."""
    queries, k, v, segments = make_inputs(ragged(5), [1500, 3, 600, 40], [63, 0, 9, 0], [30, 0, 200, 0])
    together = attend_segments(queries, k, v, segments, layer=0, scale=SCALE)
    per_request = ("slot_rows_B", "prefix_B", "tail_start_B", "tail_end_B", "table_rows_B")
    for b in range(4):
        one = replace(segments, **{name: getattr(segments, name)[b : b + 1] for name in per_request})
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        alone = attend_segments(queries[b : b + 1], k, v, one, layer=0, scale=SCALE)
        torch.set_num_threads(threads)
        assert torch.equal(alone[0], together[b])
