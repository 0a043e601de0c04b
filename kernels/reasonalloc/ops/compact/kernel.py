"""Compaction in three kernels of one program per list, none of which waits for the host.

The first counts a list's holes, movers and kept candidates. The second writes the cells of all holes,
request by request, into one array: a list finds its place there by adding up the counts before it. The
third gives the k-th mover of a request the k-th of its holes, copies K and V, and writes the table.

    R   rows, H kv heads, N candidates, as in ``reasonalloc.shapes``
    BN  candidates of one step     BR, BH  rows and heads of one step     BD  head dimension, padded
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from reasonalloc.ops import launch
from reasonalloc.ops.compact.plan import Compacted

_BLOCK_CANDIDATES = 64
_BLOCK_ROWS = 64


class _Lists(NamedTuple):
    """Contiguous ``[R, H, N]`` candidates and ``[R, H]`` lengths."""

    cells: Tensor
    lengths: Tensor
    keep: Tensor
    releasable: Tensor
    request: Tensor


class _Counts(NamedTuple):
    """int64 ``[R, H]`` each."""

    holes: Tensor
    movers: Tensor


@triton.jit
def _candidates(lists, i_list, at, N, BN: tl.constexpr):
    """Offsets of a list's next candidates, and which are kept, holes and movers, each [BN]."""
    o_n = at + tl.arange(0, BN)
    m_n = o_n < tl.load(lists.lengths + i_list)
    o_at = i_list * N + o_n
    m_keep = m_n & (tl.load(lists.keep + o_at, mask=m_n, other=0) != 0)
    m_tail = m_n & (tl.load(lists.releasable + o_at, mask=m_n, other=0) != 0)
    return o_at, m_keep, m_n & (m_keep == 0) & (m_tail == 0), m_keep & m_tail


@triton.jit
def _count(lists, counts, kept_ptr, N, BN: tl.constexpr):
    """Counts one list: kept, kept, dropped where the last two are releasable: no hole, 1 mover, 2 kept."""
    i_list = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    num_kept = tl.full([], 0, tl.int64)
    num_holes = tl.full([], 0, tl.int64)
    num_movers = tl.full([], 0, tl.int64)
    for at in range(0, N, BN):
        _o_at, m_keep, m_hole, m_mover = _candidates(lists, i_list, at, N, BN)
        num_kept += tl.sum(m_keep.to(tl.int64), 0)
        num_holes += tl.sum(m_hole.to(tl.int64), 0)
        num_movers += tl.sum(m_mover.to(tl.int64), 0)
    tl.store(kept_ptr + i_list, num_kept)
    tl.store(counts.holes + i_list, num_holes)
    tl.store(counts.movers + i_list, num_movers)


@triton.jit
def _before(lists, counts, i_r, i_h, R, H: tl.constexpr, BR: tl.constexpr, BH: tl.constexpr):
    """Where a list stands among all.

    Returns holes of earlier requests, then of the own request: all holes, holes of earlier lists, movers of earlier
    lists. Lists with 2, 3 | 1, 0 holes of two requests: the last list's are 5, 1, 1.
    """
    request = tl.load(lists.request + i_r)
    first = tl.full([], 0, tl.int64)
    own = tl.full([], 0, tl.int64)
    holes = tl.full([], 0, tl.int64)
    movers = tl.full([], 0, tl.int64)
    o_h = tl.arange(0, BH)
    for at in range(0, R, BR):
        o_r = at + tl.arange(0, BR).to(tl.int64)
        m_r = o_r < R
        b_request = tl.load(lists.request + o_r, mask=m_r, other=-1)
        m_rh = m_r[:, None] & (o_h < H)
        o_list = o_r[:, None] * H + o_h
        b_holes = tl.load(counts.holes + o_list, mask=m_rh, other=0)  # [BR, BH]
        b_movers = tl.load(counts.movers + o_list, mask=m_rh, other=0)
        m_own = m_r & (b_request == request)
        m_earlier = m_own[:, None] & (o_list < i_r * H + i_h)
        first += tl.sum(tl.sum(tl.where((m_r & (b_request < request))[:, None], b_holes, 0), 1), 0)
        own += tl.sum(tl.sum(tl.where(m_own[:, None], b_holes, 0), 1), 0)
        holes += tl.sum(tl.sum(tl.where(m_earlier, b_holes, 0), 1), 0)
        movers += tl.sum(tl.sum(tl.where(m_earlier, b_movers, 0), 1), 0)
    return first, own, holes, movers


@triton.jit
def _list_holes(
    lists, counts, holes_ptr, N, R, H: tl.constexpr, BN: tl.constexpr, BR: tl.constexpr, BH: tl.constexpr
):  # fmt: skip
    """Writes one list's holes behind those before it: holes 7, 9 after 5 others go to places 5 and 6."""
    i_r, i_h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    first, _own, before, _movers = _before(lists, counts, i_r, i_h, R, H, BR, BH)
    place = first + before
    for at in range(0, N, BN):
        o_at, _m_keep, m_hole, _m_mover = _candidates(lists, i_r * H + i_h, at, N, BN)
        b_rank = tl.cumsum(m_hole.to(tl.int64), 0)
        b_cell = tl.load(lists.cells + o_at, mask=m_hole, other=0)
        tl.store(holes_ptr + place + b_rank - 1, b_cell, mask=m_hole)
        place += tl.sum(m_hole.to(tl.int64), 0)


@triton.jit
def _copy(pool, strides, b_src, b_dst, m_n, D: tl.constexpr, BD: tl.constexpr):
    """pool[dst] = pool[src] for the marked cells; no cell is both."""
    o_d = tl.arange(0, BD)
    m_nd = m_n[:, None] & (o_d < D)
    o_d *= strides[1]
    b_x = tl.load(pool + b_src[:, None] * strides[0] + o_d, mask=m_nd, other=0.0)  # [BN, BD]
    tl.store(pool + b_dst[:, None] * strides[0] + o_d, b_x, mask=m_nd)


@triton.jit
def _place(
    lists, counts, holes_ptr, table_ptr, k, v, k_strides, v_strides, N, R, H: tl.constexpr, D: tl.constexpr,
    BN: tl.constexpr, BR: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Moves one list's movers and writes its table.

    Cells 0, 1, 2 of which 1 is a hole and 2 a mover: 2 moves to 1, and the table is 0, 1 and padding 0.
    """
    i_r, i_h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    i_list = i_r * H + i_h
    first, own, _holes, rank = _before(lists, counts, i_r, i_h, R, H, BR, BH)
    num_kept = tl.full([], 0, tl.int64)
    for at in range(0, N, BN):
        o_at, m_keep, _m_hole, m_mover = _candidates(lists, i_list, at, N, BN)
        b_cell = tl.load(lists.cells + o_at, mask=m_keep, other=0)
        b_rank = rank + tl.cumsum(m_mover.to(tl.int64), 0) - 1
        m_move = m_mover & (b_rank < own)
        b_hole = tl.load(holes_ptr + first + b_rank, mask=m_move, other=0)
        if tl.max(m_move.to(tl.int32), 0) > 0:
            _copy(k, k_strides, b_cell, b_hole, m_move, D, BD)
            _copy(v, v_strides, b_cell, b_hole, m_move, D, BD)
        b_kept = num_kept + tl.cumsum(m_keep.to(tl.int64), 0) - 1
        tl.store(table_ptr + i_list * N + b_kept, tl.where(m_move, b_hole, b_cell), mask=m_keep)
        rank += tl.sum(m_mover.to(tl.int64), 0)
        num_kept += tl.sum(m_keep.to(tl.int64), 0)
    for at in range(0, N, BN):
        o_n = at + tl.arange(0, BN)
        tl.store(table_ptr + i_list * N + o_n, tl.zeros([BN], tl.int64), mask=(o_n >= num_kept) & (o_n < N))


def compact_cells(
    k_pool_CD: Tensor,
    v_pool_CD: Tensor,
    cells_RHN: Tensor,
    lengths_RH: Tensor,
    keep_RHN: Tensor,
    releasable_RHN: Tensor,
    request_R: Tensor,
    num_requests: int,
) -> Compacted:
    """See ``reasonalloc.ops.compact.compact_cells``."""
    rows, heads, width = cells_RHN.shape
    tensors = cells_RHN, lengths_RH, keep_RHN, releasable_RHN, request_R
    lists = _Lists(*(tensor.contiguous() for tensor in tensors))
    table_RHN, holes = torch.empty_like(lists.cells), torch.empty_like(lists.cells)
    kept_RH, counts = torch.empty_like(lists.lengths), _Counts(*(torch.empty_like(lists.lengths) for _ in range(2)))
    sizes = {"H": heads, "BN": _BLOCK_CANDIDATES, "BR": _BLOCK_ROWS, "BH": launch.power_of_2(heads)}
    head_dim = k_pool_CD.shape[1]
    grid = (rows, heads)
    _count[grid](lists, counts, kept_RH, width, BN=_BLOCK_CANDIDATES)
    _list_holes[grid](lists, counts, holes, width, rows, **sizes)
    _place[grid](
        lists, counts, holes, table_RHN, k_pool_CD, v_pool_CD, k_pool_CD.stride(), v_pool_CD.stride(),
        width, rows, D=head_dim, BD=launch.power_of_2(head_dim), **sizes,
    )  # fmt: skip
    surplus_R = (counts.movers - counts.holes).sum(dim=1)
    unmatched_B = surplus_R.new_zeros(num_requests).index_add_(0, request_R, surplus_R)
    return Compacted(cells_RHN=table_RHN, lengths_RH=kept_RH, unmatched_B=unmatched_B)
