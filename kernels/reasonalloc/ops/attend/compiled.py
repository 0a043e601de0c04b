"""On a CPU: each list read once, where it lies, by a program that numba compiles.

Nothing is gathered: a list's prefix slots, owned cells and tail slots are looked up token by token, so the cost is
that of reading K and V once. Lists are cut into chunks of ``CHUNK`` tokens from their start, which are shared out to
the threads, and the chunks' outputs are put together in order. How a list is cut follows from its own length alone,
so a request's output is the same bit for bit in any batch and with any number of threads.

Slots of requests that decode together lie far apart, so every token is a page of its own. The lists of a request take
turns, chunk by chunk, for their heads share these pages; and a block's rows are prefetched while the last one is read.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numba import prange
from torch import Tensor

from reasonalloc.ops.attend.segments import Segments
from reasonalloc.ops.intrinsics import BITS, compiled, exp, prefetch, widen

CHUNK = 512
"""Tokens of one task."""

BLOCK = 64
"""Tokens whose softmax is taken together."""

SERIAL_CELLS = 1024
"""Up to so many cells one thread is faster than waking the others."""

_Program = Callable[..., None]


def attend_segments(
    queries_BQD: Tensor, k_pool_CD: Tensor, v_pool_CD: Tensor, segments: Segments, *, layer: int, scale: float
) -> Tensor:
    """See ``reasonalloc.ops.attend.attend_segments``."""
    out_BQD = torch.empty(queries_BQD.shape, dtype=torch.float32)
    if out_BQD.numel() == 0:
        return out_BQD.to(queries_BQD.dtype)
    queries = (queries_BQD.float() * scale).contiguous().numpy()
    bits = BITS[queries_BQD.dtype]
    lists = (
        segments.slots_RN.numpy(),
        segments.slot_rows_B.numpy(),
        segments.prefix_B.numpy(),
        segments.tail_start_B.numpy(),
        segments.tail_end_B.numpy(),
        segments.cells_TLHK.select(1, layer).numpy(),
        segments.owned_TLH.select(1, layer).numpy(),
        segments.table_rows_B.numpy(),
    )
    program = _program(lists)
    pools = (pool.view(bits).numpy() for pool in (k_pool_CD, v_pool_CD))
    program(queries, *pools, lists, layer * segments.num_slots, out_BQD.numpy())
    return out_BQD.to(queries_BQD.dtype)


def _program(lists: tuple[Any, ...]) -> _Program:
    """Chooses by the work that there is, which decides nothing else."""
    _, _, prefix, tail_start, tail_end, cells, owned, table_rows = lists
    threads = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
    slots, compressed = int((prefix + tail_end - tail_start).sum()), np.count_nonzero(table_rows >= 0)
    if threads == 1 or (slots + compressed * cells.shape[2]) * owned.shape[1] <= SERIAL_CELLS:
        return _attend_serial
    numba.set_num_threads(threads)
    return _attend_parallel


@compiled()
def _cut(lists):
    """Where each list's tasks begin among all tasks. [B * H + 1]"""
    _, _, prefix, tail_start, tail_end, _, owned, table_rows = lists
    heads = owned.shape[1]
    starts = np.zeros(len(prefix) * heads + 1, np.int64)
    for i in range(len(prefix) * heads):
        b, table = i // heads, table_rows[i // heads]
        length = prefix[b] + tail_end[b] - tail_start[b] + (owned[table, i % heads] if table >= 0 else 0)
        starts[i + 1] = starts[i] + (length + CHUNK - 1) // CHUNK
    return starts


@compiled()
def _in_turns(starts, heads):
    """Tasks in the order in which they are shared out: each request's by chunk, then by kv head. [tasks]"""
    order, taken = np.empty(starts[-1], np.int64), 0
    for first in range(0, len(starts) - 1, heads):
        chunk, before = 0, -1
        while before < taken:
            before = taken
            for i in range(first, first + heads):
                if starts[i] + chunk < starts[i + 1]:
                    order[taken] = starts[i] + chunk
                    taken += 1
            chunk += 1
    return order


@compiled()
def _find(lists, b, h, first_slot, start, width, k, v, found):
    """Writes the cells of ``width`` tokens of a list, from ``start`` on, and has their keys and values fetched."""
    slots, slot_rows, prefix, tail_start, _, cells, owned, table_rows = lists
    heads, table, before = owned.shape[1], table_rows[b], prefix[b]
    own = owned[table, h] if table >= 0 else np.int64(0)
    for j in range(width):
        n = start + j
        if before <= n < before + own:
            found[j] = cells[table, h, n - before]
        else:
            place = n if n < before else tail_start[b] + n - before - own
            found[j] = (first_slot + slots[slot_rows[b], place]) * heads + h
        prefetch(k, found[j])
        prefetch(v, found[j])


@compiled()
def _weigh(queries, k, cells, width, first, weights, top, total, out):
    """Turns one block of keys into weights, and brings what was summed so far down to their maximum."""
    group, dim = queries.shape
    row = np.empty(dim, np.float32)
    for j in range(width):
        key = k[cells[j]]
        for d in range(dim):
            row[d] = widen(key[d])
        for g in range(group):
            query = queries[g]
            dot = np.float32(0)
            for d in range(dim):
                dot += row[d] * query[d]
            weights[g, j] = dot
    for g in range(group):
        new_top = weights[g, 0] if first else top[g]
        for j in range(width):
            new_top = max(new_top, weights[g, j])
        shrink = np.float32(0) if first else exp(top[g] - new_top)
        top[g] = new_top
        added = np.float32(0)
        for j in range(width):
            weights[g, j] = exp(weights[g, j] - new_top)
            added += weights[g, j]
        total[g] = total[g] * shrink + added
        for d in range(dim):
            out[g, d] *= shrink


@compiled()
def _sum_up(v, cells, width, weights, out):
    """Adds one block of values."""
    group, dim = out.shape
    row = np.empty(dim, np.float32)
    for j in range(width):
        value = v[cells[j]]
        for d in range(dim):
            row[d] = widen(value[d])
        for g in range(group):
            weight, sums = weights[g, j], out[g]
            for d in range(dim):
                sums[d] += weight * row[d]


@compiled()
def _attend_task(task, starts, queries, k, v, lists, first_slot, top, total, out):
    """Attends over one chunk of one list."""
    _, _, prefix, tail_start, tail_end, _, owned, table_rows = lists
    heads, group = owned.shape[1], out.shape[0]
    i = np.searchsorted(starts, task, side="right") - 1
    b, h, table = i // heads, i % heads, table_rows[i // heads]
    length = prefix[b] + tail_end[b] - tail_start[b] + (owned[table, h] if table >= 0 else 0)
    start = (task - starts[i]) * CHUNK
    end = min(start + CHUNK, length)
    cells, weights = np.empty((2, BLOCK), np.int64), np.empty((group, BLOCK), np.float32)
    mine = queries[b, h * group : (h + 1) * group].copy()
    now, width = cells[0], min(BLOCK, end - start)
    _find(lists, b, h, first_slot, start, width, k, v, now)
    for block in range(start, end, BLOCK):
        following = block + BLOCK
        ahead, width_ahead = cells[(following - start) // BLOCK % 2], min(BLOCK, end - following)
        _find(lists, b, h, first_slot, following, width_ahead, k, v, ahead)
        _weigh(mine, k, now, width, block == start, weights, top, total, out)
        _sum_up(v, now, width, weights, out)
        now, width = ahead, width_ahead


@compiled()
def _merge(starts, tops, totals, outs, output):
    """Puts the chunks of each list together, in order; a list without tokens gives zero."""
    group, dim = outs.shape[1], outs.shape[2]
    lists_of_request = output.shape[1] // group
    for i in range(len(starts) - 1):
        for g in range(group):
            out = output[i // lists_of_request, (i % lists_of_request) * group + g]
            out[:] = np.float32(0)
            top, total = np.float32(-np.inf), np.float32(0)
            for task in range(starts[i], starts[i + 1]):
                top = max(top, tops[task, g])
            for task in range(starts[i], starts[i + 1]):
                weight = exp(tops[task, g] - top)
                total += weight * totals[task, g]
                for d in range(dim):
                    out[d] += weight * outs[task, g, d]
            for d in range(dim):
                out[d] /= max(total, np.float32(1e-30))


def _attend(queries, k, v, lists, first_slot, output):
    """Attends over all lists of one layer; the tables in ``lists`` are the layer's."""
    starts = _cut(lists)
    order, group = _in_turns(starts, lists[6].shape[1]), queries.shape[1] // lists[6].shape[1]
    outs = np.zeros((starts[-1], group, k.shape[1]), np.float32)
    tops = np.zeros((starts[-1], group), np.float32)
    totals = np.zeros((starts[-1], group), np.float32)
    for turn in prange(starts[-1]):
        task = order[turn]
        _attend_task(task, starts, queries, k, v, lists, first_slot, tops[task], totals[task], outs[task])
    _merge(starts, tops, totals, outs, output)


_attend_serial: _Program = compiled()(_attend)
_attend_parallel: _Program = compiled(parallel=True)(_attend)
