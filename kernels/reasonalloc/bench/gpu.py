"""Times of the kernels on a GPU, after all of them equal their references.

Each call is captured into a CUDA graph, which fails where something waits for the device, and replayed with a cold
L2 cache. The floor of a call is the bytes it has to move at the bandwidth of a copy on the same device.
"""

import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from reasonalloc.bench.checks import CHECKS
from reasonalloc.ops.attend import Segments, attend_cells, attend_segments, vectorized
from reasonalloc.ops.budgets import layer_budgets
from reasonalloc.ops.compact import compact_cells
from reasonalloc.ops.keep import keep_top
from reasonalloc.ops.route import route_heads
from reasonalloc.ops.score import rkv_score

HEADS, GROUP, HEAD_DIM, DTYPE = 8, 4, 128, torch.bfloat16
BATCH, MEAN_CELLS, SKEW, PREFIX, TAIL = 64, 1024, 8, 256, 64
REQUESTS, LAYERS, BUDGET, BUFFER, WINDOW = 16, 32, 1024, 128, 8
WARMUPS, RUNS, COPY_BYTES = 3, 25, 2**30

Call = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call over ``RUNS`` replays.

    Attributes:
        what: The call.
        median_ms: Median.
        fastest_ms: Fastest.
        slowest_ms: Slowest.
        moved_bytes: Bytes that the call has to read and write; 0 where that says little.
        floor_ms: Time of a copy that reads and writes as many.
    """

    what: str
    median_ms: float
    fastest_ms: float
    slowest_ms: float
    moved_bytes: int
    floor_ms: float


def check_and_measure(device: torch.device) -> list[Timing]:
    """Runs every check, then every measurement, and prints one table.

    Raises:
        AssertionError: A kernel differs from its reference; nothing is timed then.
    """
    for name, check in CHECKS.items():
        check(device)
        sys.stdout.write(f"equals its reference: {name}\n")
    cold = torch.empty(2 * torch.cuda.get_device_properties(device).L2_cache_size, dtype=torch.int8, device=device)
    halves = torch.empty(2, COPY_BYTES // 2, dtype=torch.int8, device=device)
    copy = measure("copy", partial(halves[0].copy_, halves[1]), COPY_BYTES, 0.0, cold)
    bandwidth = COPY_BYTES / copy.median_ms
    timings = [copy]
    for calls in (attention_calls, round_calls):
        with torch.random.fork_rng(devices=[device]):
            torch.manual_seed(0)
            timings += [measure(what, call, moved, moved / bandwidth, cold) for what, call, moved in calls(device)]
    sys.stdout.write(table(timings))
    return timings


def measure(what: str, call: Call, moved_bytes: int, floor_ms: float, cold: Tensor) -> Timing:
    """Times replays of a captured call, each after a write over the whole L2 cache."""
    for _ in range(WARMUPS):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    times_ms = []
    for _ in range(RUNS):
        cold.zero_()
        start, end = (torch.Event(device=cold.device, enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times_ms.append(start.elapsed_time(end))
    return Timing(what, statistics.median(times_ms), min(times_ms), max(times_ms), moved_bytes, floor_ms)


def attention_calls(device: torch.device) -> Iterator[tuple[str, Call, int]]:
    """Decode attention of one layer: heads of equal lists, heads of skewed ones, and segments."""
    scale = HEAD_DIM**-0.5
    queries = torch.randn(BATCH, HEADS * GROUP, HEAD_DIM, dtype=DTYPE, device=device)
    for skew in (1, SKEW):
        lengths = skewed_lengths(skew, device).expand(BATCH, HEADS).contiguous()
        num_cells = BATCH * HEADS * int(lengths.max())
        k, v = (torch.randn(num_cells, HEAD_DIM, dtype=DTYPE, device=device) for _ in range(2))
        cells = torch.randperm(num_cells, device=device).view(BATCH, HEADS, -1)
        moved = 2 * int(lengths.sum()) * HEAD_DIM * k.element_size()
        on_cells = queries, k, v, cells, lengths, scale
        yield f"attend_cells, skew {skew}:1", partial(attend_cells, *on_cells), moved
        yield f"  gathered, then torch's attention, skew {skew}:1", partial(vectorized.attend_cells, *on_cells), moved
        segments = make_segments(lengths, device)
        num_cells = segments.num_slots * HEADS
        k, v = (torch.randn(num_cells, HEAD_DIM, dtype=DTYPE, device=device) for _ in range(2))
        moved += 2 * BATCH * HEADS * (PREFIX + TAIL) * HEAD_DIM * k.element_size()
        what = f"attend_segments, skew {skew}:1, {PREFIX} prefix, {TAIL} tail"
        yield what, partial(attend_segments, queries, k, v, segments, layer=0, scale=scale), moved


def skewed_lengths(skew: int, device: torch.device) -> Tensor:
    """Lengths of one request's heads: geometric from the shortest to ``skew`` times it, ``MEAN_CELLS`` on average."""
    relative = float(skew) ** torch.linspace(0, 1, HEADS, dtype=torch.float64)
    return (relative / relative.mean() * MEAN_CELLS).round().long().to(device)


def make_segments(lengths_BH: Tensor, device: torch.device) -> Segments:
    """Prefix, owned and tail of ``BATCH`` compressed requests in one layer, scattered over the pool."""
    width = PREFIX + MEAN_CELLS + TAIL
    num_slots, longest = BATCH * width, int(lengths_BH.max())
    slots_RN = torch.randperm(num_slots, device=device).view(BATCH, width)
    owned_cells = slots_RN[:, PREFIX : PREFIX + MEAN_CELLS, None] * HEADS + torch.arange(HEADS, device=device)
    # What a list has beyond the mean it shares with the next head's; nothing here writes to cells.
    shuffled = owned_cells.flatten(1)[:, torch.randperm(MEAN_CELLS * HEADS, device=device)]
    cells_BHK = torch.stack([shuffled.roll(head * MEAN_CELLS, dims=1)[:, :longest] for head in range(HEADS)], dim=1)
    rows = torch.arange(BATCH, device=device)
    start = torch.full_like(rows, PREFIX + MEAN_CELLS)
    return Segments(
        slots_RN=slots_RN.int(),
        slot_rows_B=rows,
        prefix_B=torch.full_like(rows, PREFIX),
        tail_start_B=start,
        tail_end_B=start + TAIL,
        cells_TLHK=cells_BHK[:, None],
        owned_TLH=lengths_BH[:, None],
        table_rows_B=rows,
        num_slots=num_slots,
    )


def round_calls(device: torch.device) -> Iterator[tuple[str, Call, int]]:
    """The steps of a first round of ``REQUESTS`` requests together: every list is the budget and the buffer long."""
    rows, width = REQUESTS * LAYERS, BUDGET + BUFFER
    lengths = torch.full((rows, HEADS), width, device=device)
    slots = torch.randperm(REQUESTS * width, device=device).view(REQUESTS, 1, 1, width)
    layers, heads = torch.arange(LAYERS, device=device)[:, None, None], torch.arange(HEADS, device=device)[:, None]
    cells = ((layers * REQUESTS * width + slots) * HEADS + heads).view(rows, HEADS, width)
    k, v = (torch.randn(cells.numel(), HEAD_DIM, dtype=DTYPE, device=device) for _ in range(2))
    queries = torch.randn(rows, WINDOW, HEADS * GROUP, HEAD_DIM, dtype=DTYPE, device=device)
    weights, request = (
        torch.rand(LAYERS, device=device),
        torch.arange(REQUESTS, device=device).repeat_interleave(LAYERS),
    )
    total = torch.full((REQUESTS,), BUDGET * LAYERS * HEADS, device=device)
    least = torch.full_like(total, 2 * WINDOW * HEADS)
    available = lengths.view(REQUESTS, LAYERS, HEADS).sum(dim=2)
    tail = (torch.arange(width, device=device) >= BUDGET).expand_as(cells)
    key_bytes = cells.numel() * HEAD_DIM * k.element_size()

    scoring = partial(rkv_score, queries, k[cells], lengths, window=WINDOW)
    splitting = partial(layer_budgets, weights, total, available, least)
    scores, budgets = scoring(), splitting().flatten()
    routing = partial(route_heads, scores, lengths, budgets, min_cells=2 * WINDOW)
    keeping = partial(keep_top, scores, lengths, routing())
    keep = keeping()
    compacting = partial(compact_cells, k, v, cells, lengths, keep, tail, request, REQUESTS)
    unmatched = int(compacting().unmatched_B.abs().sum())
    assert unmatched == 0, f"{unmatched} cells without a hole"
    key_bytes, score_bytes = cells.numel() * HEAD_DIM * k.element_size(), scores.numel() * scores.element_size()
    yield "gather keys", partial(k.index_select, 0, cells.flatten()), 2 * key_bytes
    yield "score", scoring, key_bytes
    yield "layer budgets", splitting, 0
    yield "route", routing, score_bytes
    yield "keep", keeping, score_bytes
    yield "compact", compacting, 4 * int((keep & tail).sum()) * HEAD_DIM * k.element_size()


def table(timings: list[Timing]) -> str:
    """One line per call; the floor is what a copy of as many bytes takes."""
    lines = [
        f"attention: batch {BATCH}, {HEADS} kv heads of {GROUP} query heads, {HEAD_DIM} wide, {DTYPE}, "
        f"{MEAN_CELLS} cells per head on average",
        f"round: {REQUESTS} requests of {LAYERS} layers, {BUDGET} slots kept of {BUDGET + BUFFER}",
        f"{'call':56}{'median ms':>11}{'fastest':>10}{'slowest':>10}{'GB/s':>9}{'floor ms':>10}{'x floor':>9}",
    ]
    for timing in timings:
        rate = f"{timing.moved_bytes / timing.median_ms / 1e6:.0f}" if timing.moved_bytes else "-"
        floor = f"{timing.floor_ms:.3f}" if timing.floor_ms else "-"
        ratio = f"{timing.median_ms / timing.floor_ms:.2f}" if timing.floor_ms else "-"
        times = f"{timing.median_ms:>11.3f}{timing.fastest_ms:>10.3f}{timing.slowest_ms:>10.3f}"
        lines.append(f"{timing.what:56}{times}{rate:>9}{floor:>10}{ratio:>9}")
    return "\n".join(lines) + "\n"
