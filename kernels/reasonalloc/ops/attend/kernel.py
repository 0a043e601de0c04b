"""Decode attention in two kernels: parts of each list side by side, then one merge.

A list is cut into as many chunks as it needs, at most ``SPLITS``; the first kernel attends over each
chunk and leaves its output and the log of its softmax denominator, the second weighs the chunks by
these. The grid follows from shapes alone; programs behind a list's end leave at once.

    B   requests           H   kv heads         D   head dimension
    G   query heads that share a kv head        N   tokens of one step
    S   splits of a list
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from reasonalloc.ops import launch
from reasonalloc.ops.attend.segments import Segments
from reasonalloc.ops.common import dot


class _Lists(NamedTuple):
    """Where tokens lie. A segment that a call has not is None; rows of None are requests themselves."""

    slots: Tensor | None = None
    slot_rows: Tensor | None = None
    prefix: Tensor | None = None
    tail_start: Tensor | None = None
    tail_end: Tensor | None = None
    cells: Tensor | None = None
    owned: Tensor | None = None
    table_rows: Tensor | None = None
    slots_row_stride: int = 0
    cells_row_stride: int = 0
    cells_head_stride: int = 0
    cells_stride: int = 0
    owned_row_stride: int = 0
    owned_head_stride: int = 0


class _Pool(NamedTuple):
    """K or V: cells count from the first layer, slots from ``first_slot``."""

    base: Tensor
    first_slot: int
    cell_stride: int
    slot_stride: int
    head_stride: int
    dim_stride: int


@triton.jit
def _row(rows, i_b):
    if rows is None:
        return i_b
    else:
        return tl.load(rows + i_b)


@triton.jit
def _counts(lists, i_b, i_h):
    """Prefix, owned and tail tokens of one list, and the row's first tail place."""
    num_prefix = tl.full([], 0, tl.int64)
    num_owned = tl.full([], 0, tl.int64)
    tail_start = tl.full([], 0, tl.int64)
    num_tail = tl.full([], 0, tl.int64)
    if lists.prefix is not None:
        num_prefix = tl.load(lists.prefix + i_b)
    if lists.cells is not None:
        i_row = _row(lists.table_rows, i_b)
        p_owned = lists.owned + i_row * lists.owned_row_stride + i_h * lists.owned_head_stride
        num_owned = tl.load(p_owned, mask=i_row >= 0, other=0)
    if lists.tail_start is not None:
        tail_start = tl.load(lists.tail_start + i_b)
        num_tail = tl.load(lists.tail_end + i_b) - tail_start
    return num_prefix, num_owned, tail_start, num_tail


@triton.jit
def _offsets(pool, o_slot, o_cell, m_owned, i_h):
    """Offsets of tokens' keys or values, [N]."""
    o_of_slot = (o_slot + pool.first_slot) * pool.slot_stride + i_h * pool.head_stride
    return tl.where(m_owned, o_cell * pool.cell_stride, o_of_slot)


@triton.jit
def _places(lists, i_b, i_h, o_n, m_n, num_prefix, num_owned, tail_start):
    """Slots, cells and which of the two hold for the tokens ``o_n`` of a list, each [N]."""
    m_owned = (o_n >= num_prefix) & (o_n < num_prefix + num_owned)
    o_slot = tl.zeros_like(o_n)
    o_cell = tl.zeros_like(o_n)
    if lists.slots is not None:
        o_column = tl.where(o_n < num_prefix, o_n, o_n - num_prefix - num_owned + tail_start)
        p_slots = lists.slots + _row(lists.slot_rows, i_b) * lists.slots_row_stride
        o_slot = tl.load(p_slots + o_column, mask=m_n & (m_owned == 0), other=0).to(tl.int64)
    if lists.cells is not None:
        p_cells = lists.cells + _row(lists.table_rows, i_b) * lists.cells_row_stride + i_h * lists.cells_head_stride
        o_cell = tl.load(p_cells + (o_n - num_prefix) * lists.cells_stride, mask=m_n & m_owned, other=0)
    return o_slot, o_cell, m_owned


@triton.jit
def _attend_chunk(
    query, k, v, lists, part_ptr, lse_ptr, scale, D: tl.constexpr, G: tl.constexpr, BD: tl.constexpr,
    BG: tl.constexpr, BN: tl.constexpr, CHUNK: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """One chunk of one list, for the query heads of one kv head.

    Three tokens with logits log(1), log(2), log(5) and values 8, 4, 0 in chunks of two: the chunks
    leave outputs (1 * 8 + 2 * 4) / 3 = 5.33 and 0, and logs of sums log(3) and log(5).
    """
    i_b, i_h, i_s = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2)
    num_prefix, num_owned, tail_start, num_tail = _counts(lists, i_b, i_h)
    length = num_prefix + num_owned + num_tail
    chunk = tl.cdiv(tl.maximum(tl.cdiv(length, SPLITS), CHUNK), BN) * BN
    start = i_s * chunk
    end = tl.minimum(start + chunk, length)
    o_g, o_d = tl.arange(0, BG), tl.arange(0, BD)
    o_q = i_h * G + o_g
    m_d = o_d < D
    p_q = query.base + i_b * query.slot_stride + o_q[:, None] * query.head_stride + o_d * query.dim_stride
    b_q = tl.load(p_q, mask=(o_g < G)[:, None] & m_d, other=0.0)  # [BG, BD]
    b_max = tl.full([BG], float("-inf"), tl.float32)
    b_sum = tl.zeros([BG], tl.float32)
    b_out = tl.zeros([BG, BD], tl.float32)
    for at in range(start, end, BN):
        o_n = at + tl.arange(0, BN).to(tl.int64)
        m_n = o_n < end
        o_slot, o_cell, m_owned = _places(lists, i_b, i_h, o_n, m_n, num_prefix, num_owned, tail_start)
        m_nd = m_n[:, None] & m_d
        p_k = k.base + _offsets(k, o_slot, o_cell, m_owned, i_h)[:, None] + o_d * k.dim_stride
        p_v = v.base + _offsets(v, o_slot, o_cell, m_owned, i_h)[:, None] + o_d * v.dim_stride
        b_k, b_v = tl.load(p_k, mask=m_nd, other=0.0), tl.load(p_v, mask=m_nd, other=0.0)  # [BN, BD]
        b_logit = dot(b_q, tl.trans(b_k)) * scale
        b_logit = tl.where(m_n, b_logit, float("-inf"))  # [BG, BN]
        b_new_max = tl.maximum(b_max, tl.max(b_logit, 1))
        b_weight = tl.exp(b_logit - b_new_max[:, None])
        b_decay = tl.exp(b_max - b_new_max)
        b_sum = b_sum * b_decay + tl.sum(b_weight, 1)
        b_out = b_out * b_decay[:, None] + dot(b_weight.to(b_v.dtype), b_v)
        b_max = b_new_max
    _store_chunk(part_ptr, lse_ptr, (i_b * tl.num_programs(1) * G + o_q) * SPLITS + i_s,
                 b_out, b_sum, b_max, o_g < G, m_d, D)  # fmt: skip


@triton.jit
def _store_chunk(part_ptr, lse_ptr, o_part, b_out, b_sum, b_max, m_g, m_d, D: tl.constexpr):
    """An empty chunk leaves minus infinity, and no output: the merge does not read it."""
    m_used = b_sum > 0
    b_total = tl.where(m_used, b_sum, 1.0)
    tl.store(lse_ptr + o_part, tl.where(m_used, b_max + tl.log(b_total), float("-inf")), mask=m_g)
    p_part = part_ptr + o_part[:, None] * D + tl.arange(0, b_out.shape[1])
    tl.store(p_part, b_out / b_total[:, None], mask=(m_g & m_used)[:, None] & m_d)


@triton.jit
def _merge_chunks(
    part_ptr, lse_ptr, out_ptr, D: tl.constexpr, BD: tl.constexpr, SPLITS: tl.constexpr
):  # fmt: skip
    """The chunks of one query head, weighted by their shares of the softmax denominator.

    Outputs 5.33 and 0 with logs of sums log(3) and log(5) have shares 3/8 and 5/8: 2.
    """
    i_q = tl.program_id(0).to(tl.int64)
    o_s, o_d = tl.arange(0, SPLITS), tl.arange(0, BD)
    b_lse = tl.load(lse_ptr + i_q * SPLITS + o_s)
    m_used = b_lse > float("-inf")
    m_d = o_d < D
    p_part = part_ptr + (i_q * SPLITS + o_s)[:, None] * D + o_d
    b_part = tl.load(p_part, mask=m_used[:, None] & m_d, other=0.0)  # [SPLITS, BD]
    greatest = tl.max(b_lse, 0)
    b_share = tl.exp(b_lse - tl.where(greatest > float("-inf"), greatest, 0.0))
    total = tl.sum(b_share, 0)
    b_out = tl.sum(b_part * b_share[:, None], 0) / tl.where(total > 0, total, 1.0)
    tl.store(out_ptr + i_q * D + o_d, b_out.to(out_ptr.dtype.element_ty), mask=m_d)


def attend_cells(
    queries_BQD: Tensor, k_pool_CD: Tensor, v_pool_CD: Tensor, cells_BHN: Tensor, lengths_BH: Tensor, scale: float
) -> Tensor:
    """See ``reasonalloc.ops.attend.attend_cells``."""
    lists = _Lists(cells=cells_BHN, owned=lengths_BH, **_list_strides(cells_BHN, lengths_BH))
    k, v = (_Pool(pool, 0, pool.stride(0), 0, 0, pool.stride(1)) for pool in (k_pool_CD, v_pool_CD))
    return _attend(queries_BQD, k, v, lists, cells_BHN.shape[1], cells_BHN.shape[2], scale)


def attend_slots(
    queries_BQD: Tensor, k_SHD: Tensor, v_SHD: Tensor, slots_BN: Tensor, lengths_B: Tensor, scale: float
) -> Tensor:
    """See ``reasonalloc.ops.attend.attend_slots``."""
    slots_BN = _with_dense_rows(slots_BN)
    lists = _Lists(slots=slots_BN, prefix=lengths_B.contiguous(), slots_row_stride=slots_BN.stride(0))
    k, v = (_Pool(pool, 0, 0, *pool.stride()) for pool in (k_SHD, v_SHD))
    return _attend(queries_BQD, k, v, lists, k_SHD.shape[1], slots_BN.shape[1], scale)


def attend_segments(
    queries_BQD: Tensor, k_pool_CD: Tensor, v_pool_CD: Tensor, segments: Segments, *, layer: int, scale: float
) -> Tensor:
    """See ``reasonalloc.ops.attend.attend_segments``."""
    slots_RN = _with_dense_rows(segments.slots_RN)
    cells_THK, owned_TH = segments.cells_TLHK[:, layer], segments.owned_TLH[:, layer]
    heads = owned_TH.shape[1]
    lists = _Lists(
        slots=slots_RN,
        slot_rows=segments.slot_rows_B.contiguous(),
        prefix=segments.prefix_B.contiguous(),
        tail_start=segments.tail_start_B.contiguous(),
        tail_end=segments.tail_end_B.contiguous(),
        cells=cells_THK,
        owned=owned_TH,
        table_rows=segments.table_rows_B.contiguous(),
        slots_row_stride=slots_RN.stride(0),
        **_list_strides(cells_THK, owned_TH),
    )
    k, v = (
        _Pool(pool, layer * segments.num_slots, pool.stride(0), heads * pool.stride(0), *pool.stride())
        for pool in (k_pool_CD, v_pool_CD)
    )
    return _attend(queries_BQD, k, v, lists, heads, slots_RN.shape[1] + cells_THK.shape[2], scale)


def _list_strides(cells_BHN: Tensor, lengths_BH: Tensor) -> dict[str, Any]:
    names = ("cells_row_stride", "cells_head_stride", "cells_stride", "owned_row_stride", "owned_head_stride")
    return dict(zip(names, (*cells_BHN.stride(), *lengths_BH.stride()), strict=True))


def _with_dense_rows(slots: Tensor) -> Tensor:
    """Kernels read the places of a row side by side."""
    return slots if slots.stride(1) == 1 else slots.contiguous()


def _attend(
    queries_BQD: Tensor, k: _Pool, v: _Pool, lists: _Lists, num_heads: int, capacity: int, scale: float
) -> Tensor:
    batch, num_queries, head_dim = queries_BQD.shape
    how = launch.attend_launch(queries_BQD)
    splits = min(how.splits, launch.power_of_2(triton.cdiv(capacity, how.chunk_tokens)))
    like: dict[str, Any] = {"dtype": torch.float32, "device": queries_BQD.device}
    part = torch.empty(batch, num_queries, splits, head_dim, **like)
    lse = torch.empty(batch, num_queries, splits, **like)
    out_BQD = torch.empty(queries_BQD.shape, dtype=queries_BQD.dtype, device=queries_BQD.device)
    group = num_queries // num_heads
    # tl.dot takes at least 16 rows and columns.
    blocks = {"BD": launch.power_of_2(head_dim, 16), "BG": launch.power_of_2(group, 16), "BN": how.block_tokens}
    _attend_chunk[(batch, num_heads, splits)](
        _Pool(queries_BQD, 0, 0, *queries_BQD.stride()), k, v, lists, part, lse, scale, D=head_dim, G=group,
        CHUNK=how.chunk_tokens, SPLITS=splits, num_warps=how.warps, num_stages=how.stages, **blocks,
    )  # fmt: skip
    _merge_chunks[(batch * num_queries,)](part, lse, out_BQD, D=head_dim, BD=blocks["BD"], SPLITS=splits)
    return out_BQD
