"""Times of the operators on a CPU.

One round of one request of a small model (30 layers, 3 kv heads, 256 candidates each, 64 wide): each operator by the
reference and by the vectorised path, then the whole round by each named method.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from reasonalloc.bench import rounds
from reasonalloc.ops import compact, keep, route, score
from reasonalloc.ops.compact import reference as compact_reference
from reasonalloc.ops.keep import reference as keep_reference
from reasonalloc.ops.route import reference as route_reference
from reasonalloc.ops.score import reference as score_reference

LAYERS, HEADS, GROUP, CANDIDATES, HEAD_DIM, WINDOW = 30, 3, 3, 256, 64, 8
BUDGET, RUNS = 128, 7

Call = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one implementation of one operator over ``RUNS`` runs."""

    op: str
    implementation: str
    median_ms: float
    fastest_ms: float
    slowest_ms: float


def calls() -> dict[str, dict[str, Call]]:
    """Each operator's implementations, bound to the inputs of one round."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(LAYERS, WINDOW, HEADS * GROUP, HEAD_DIM, generator=generator)
    keys = torch.randn(LAYERS, HEADS, CANDIDATES, HEAD_DIM, generator=generator) + 0.5
    lengths = torch.full((LAYERS, HEADS), CANDIDATES)
    scores = score.rkv_score(queries, keys, lengths, window=WINDOW)
    budgets = torch.full((LAYERS,), BUDGET * HEADS)
    counts = route.route_heads(scores, lengths, budgets, min_cells=2 * WINDOW)
    kept = keep.keep_top(scores, lengths, counts)
    # A first round: the table is the identity, the newest slots are given back.
    slots = torch.arange(CANDIDATES)
    rows_and_heads = torch.arange(LAYERS * HEADS).view(LAYERS, HEADS, 1)
    cells = rows_and_heads + slots * (LAYERS * HEADS)
    releasable = (slots >= BUDGET).expand_as(cells)
    compaction = cells, lengths, kept, releasable, torch.zeros(LAYERS, dtype=torch.int64), 1
    scoring = queries, keys, lengths
    return {
        "score": {
            "reference": lambda: score_reference.rkv_score(*scoring, window=WINDOW),
            "vectorized": lambda: score.rkv_score(*scoring, window=WINDOW),
        },
        "route": {
            "reference": lambda: route_reference.route_heads(scores, lengths, budgets, min_cells=2 * WINDOW),
            "vectorized": lambda: route.route_heads(scores, lengths, budgets, min_cells=2 * WINDOW),
        },
        "keep": {
            "reference": lambda: keep_reference.keep_top(scores, lengths, counts),
            "vectorized": lambda: keep.keep_top(scores, lengths, counts),
        },
        "compact": {
            "reference": lambda: compact_reference.plan_compaction(*compaction),
            "vectorized": lambda: compact.plan_compaction(*compaction),
        },
    }


def measure(op: str, implementations: dict[str, Call]) -> list[Timing]:
    """Times implementations in turns, so that a busy machine slows all of them alike."""
    for call in implementations.values():
        call()
    times_ms: dict[str, list[float]] = {name: [] for name in implementations}
    for _ in range(RUNS):
        for name, call in implementations.items():
            start = time.perf_counter()
            call()
            times_ms[name].append((time.perf_counter() - start) * 1e3)
    return [
        Timing(op, name, statistics.median(runs_ms), min(runs_ms), max(runs_ms)) for name, runs_ms in times_ms.items()
    ]


def table(timings: list[Timing]) -> Table:
    """One line per implementation."""
    result = Table(
        title=f"L={LAYERS} H={HEADS} G={GROUP} N={CANDIDATES} D={HEAD_DIM} W={WINDOW}, float32, {RUNS} runs in turns"
    )
    for column in ("operator", "implementation"):
        result.add_column(column)
    for column in ("median ms", "fastest", "slowest"):
        result.add_column(column, justify="right")
    for timing in timings:
        figures = (timing.median_ms, timing.fastest_ms, timing.slowest_ms)
        result.add_row(timing.op, timing.implementation, *(f"{figure:.2f}" for figure in figures))
    return result


def measure_all() -> tuple[list[Timing], list[rounds.RoundTiming]]:
    """Measures every operator, then a round of every named method, and prints a table of each."""
    timings = [timing for op, implementations in calls().items() for timing in measure(op, implementations)]
    Console().print(table(timings))
    round_timings = rounds.measure_rounds()
    Console().print(rounds.table(round_timings))
    return timings, round_timings
