"""Decode attention of one layer beside that of SGLang's ``torch_native`` backend, on the same numbers of tokens."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from rich.progress import Progress
from rich.table import Table

from reasonalloc.ops.attend import Segments, attend_segments

HEADS, GROUP, HEAD_DIM = 3, 3, 64
"""Of the default model."""

PREFIX, TAIL = 32, 64
"""Slots of a compressed request's prompt and tail; the rest of its tokens are owned cells."""

SKEW = (0.5, 1.0, 1.5)
"""How the owned cells of a compressed request are shared by its kv heads."""

FULL_LENGTHS, QUICK_LENGTHS = (128, 1024, 4096), (128, 1024)
BATCHES = (1, 8, 32)
TOKENS_PER_RUN = 100_000
"""Tokens that one timed run attends to, so that short shapes are timed over many calls."""

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Timing:
    """One shape, timed in turns.

    Attributes:
        kind: "dense" or "compressed".
        batch: Requests.
        length: Tokens of each, on average over its kv heads.
        stock_us: Median of SGLang's call, in microseconds.
        ours_us: Median of ours.
        speedups: Stock over ours in each turn, in wall-clock time, sorted.
        processor_speedups: Likewise in the process' time on all processors, waits between threads left out.
    """

    kind: str
    batch: int
    length: int
    stock_us: float
    ours_us: float
    speedups: tuple[float, ...]
    processor_speedups: tuple[float, ...]


def measure(dtype: torch.dtype, *, quick: bool, progress: Progress) -> list[Timing]:
    """Times every shape; SGLang attends densely to as many tokens as a compressed request holds."""
    lengths, turns = (QUICK_LENGTHS, 7) if quick else (FULL_LENGTHS, 15)
    shapes = [(kind, b, n) for n in lengths for b in BATCHES for kind in ("dense", "compressed")]
    return [_time(*shape, dtype, turns) for shape in progress.track(shapes, description="Timing attention")]


def table(timings: Iterable[Timing]) -> Table:
    """Returns one line per shape."""
    shown = Table(title="Decode attention of one layer; stock is SGLang's torch_native", title_justify="left")
    for column in ("requests", "batch", "length", "stock us", "ours us", "speedup", "lowest", "highest", "processor"):
        shown.add_column(column, justify="left" if column == "requests" else "right")
    for t in timings:
        ratios = (
            statistics.median(t.speedups),
            t.speedups[0],
            t.speedups[-1],
            statistics.median(t.processor_speedups),
        )
        shown.add_row(
            t.kind,
            *(str(n) for n in (t.batch, t.length)),
            *(f"{us:.0f}" for us in (t.stock_us, t.ours_us)),
            *(f"{ratio:.2f}x" for ratio in ratios),
        )
    return shown


def as_json(timings: Iterable[Timing]) -> dict[str, Any]:
    """Returns every figure."""
    return {"attention": [asdict(timing) for timing in timings]}


def _time(kind: str, batch: int, length: int, dtype: torch.dtype, turns: int) -> Timing:
    stock, ours = _calls(kind, batch, length, dtype)
    calls = min(300, max(1, TOKENS_PER_RUN // (batch * length)))
    pairs = [(_run_us(stock, calls), _run_us(ours, calls)) for _ in range(turns + 1)][1:]
    speedups, processor = (tuple(sorted(s[clock] / o[clock] for s, o in pairs)) for clock in range(2))
    stock_us, ours_us = (statistics.median(pair[side][0] for pair in pairs) for side in range(2))
    return Timing(kind, batch, length, stock_us, ours_us, speedups, processor)


def _run_us(call: Call, calls: int) -> tuple[float, float]:
    """Returns microseconds per call: on the wall clock, and on all processors."""
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    return (time.perf_counter() - wall) / calls * 1e6, (time.process_time() - processor) / calls * 1e6


def _calls(kind: str, batch: int, length: int, dtype: torch.dtype) -> tuple[Call, Call]:
    """Returns SGLang's attention and ours, over the same pool."""
    generator = torch.Generator().manual_seed(0)
    num_slots = batch * length + 1
    k_CD, v_CD = (torch.randn(num_slots * HEADS, HEAD_DIM, generator=generator).to(dtype) for _ in range(2))
    queries_BQD = torch.randn(batch, HEADS * GROUP, HEAD_DIM, generator=generator).to(dtype)
    # Requests that decode together take slots in turns.
    slots_RN = (torch.arange(batch * length).view(length, batch).T + 1).int().contiguous()
    rows_B, lengths_B = torch.arange(batch), torch.full((batch,), length)
    segments = _dense(slots_RN, lengths_B) if kind == "dense" else _compressed(slots_RN, lengths_B)
    stock = partial(_stock, queries_BQD, k_CD, v_CD, slots_RN, rows_B, lengths_B)
    return stock, partial(attend_segments, queries_BQD, k_CD, v_CD, segments, layer=0, scale=HEAD_DIM**-0.5)


def _stock(
    queries_BQD: torch.Tensor,
    k_CD: torch.Tensor,
    v_CD: torch.Tensor,
    slots_RN: torch.Tensor,
    rows_B: torch.Tensor,
    lengths_B: torch.Tensor,
) -> None:
    from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend

    k_SHD, v_SHD = (pool.view(-1, HEADS, HEAD_DIM) for pool in (k_CD, v_CD))
    TorchNativeAttnBackend._run_sdpa_forward_decode(
        None,
        queries_BQD,
        torch.empty_like(queries_BQD),
        k_SHD,
        v_SHD,
        slots_RN,
        rows_B,
        lengths_B,
        scaling=HEAD_DIM**-0.5,
        enable_gqa=True,
    )


def _dense(slots_RN: torch.Tensor, lengths_B: torch.Tensor) -> Segments:
    nobody = torch.zeros((1, 1, HEADS, 1), dtype=torch.int64)
    return Segments(
        slots_RN=slots_RN,
        slot_rows_B=torch.arange(len(lengths_B)),
        prefix_B=lengths_B,
        tail_start_B=lengths_B,
        tail_end_B=lengths_B,
        cells_TLHK=nobody,
        owned_TLH=nobody[..., 0],
        table_rows_B=torch.full_like(lengths_B, -1),
        num_slots=slots_RN.numel() + 1,
    )


def _compressed(slots_RN: torch.Tensor, lengths_B: torch.Tensor) -> Segments:
    """Rows of prefix, owned cells and tail; which cell serves which head is drawn at random, as after many rounds."""
    batch, length = slots_RN.shape
    owned = length - PREFIX - TAIL
    counts_H = torch.tensor([int(owned * share) for share in SKEW])
    counts_H[1] += owned * HEADS - int(counts_H.sum())
    cells_BN = (slots_RN[:, PREFIX : PREFIX + owned].long()[..., None] * HEADS + torch.arange(HEADS)).flatten(1)
    order_N = torch.randperm(cells_BN.shape[1], generator=torch.Generator().manual_seed(1))
    lists = [
        part.sort().values for part in torch.tensor_split(cells_BN[:, order_N], counts_H.cumsum(0)[:-1].tolist(), 1)
    ]
    cells_TLHK = torch.zeros((batch, 1, HEADS, int(counts_H.max())), dtype=torch.int64)
    for head, part in enumerate(lists):
        cells_TLHK[:, 0, head, : part.shape[1]] = part
    return Segments(
        slots_RN=slots_RN,
        slot_rows_B=torch.arange(batch),
        prefix_B=torch.full_like(lengths_B, PREFIX),
        tail_start_B=torch.full_like(lengths_B, PREFIX + owned),
        tail_end_B=lengths_B,
        cells_TLHK=cells_TLHK,
        owned_TLH=counts_H.expand(batch, 1, HEADS).contiguous(),
        table_rows_B=torch.arange(batch),
        num_slots=slots_RN.numel() + 1,
    )
