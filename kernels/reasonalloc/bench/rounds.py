"""What whole rounds cost by method: score, layer budgets, head counts, keep, compaction.

Rounds of all methods run in turns on the same inputs, and each is compared with the round of ``r-kv`` of the same
turn, so that a busy machine slows both alike.
"""

import statistics
import time
from dataclasses import dataclass

import torch
from rich.table import Table

from reasonalloc import levels
from reasonalloc.centres import NUMBERS, QueryCentres
from reasonalloc.methods import NAMED_METHODS, Triple
from reasonalloc.ops.compact import compact_cells
from reasonalloc.ops.keep import keep_top
from reasonalloc.profile import PROFILE_RHOS, LayerProfile
from reasonalloc.scorers import SCORERS, Candidates, Centres

LAYERS, HEADS, GROUP, CANDIDATES, HEAD_DIM, QUERIES = 30, 3, 3, 256, 64, 16
BUDGET, TURNS = 128, 15
BASELINE = "r-kv"


@dataclass(frozen=True)
class RoundTiming:
    """Milliseconds of one method's rounds, and how they compare with ``r-kv``, turn by turn.

    Attributes:
        method: Name of the method.
        median_ms: Of all turns.
        fastest_ms: Of all turns.
        ratio: Median over the turns of its time over that of ``r-kv``.
        ratio_low: Lower quartile of the same.
        ratio_high: Upper quartile of the same.
    """

    method: str
    median_ms: float
    fastest_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float


class Rounds:
    """Seeded inputs of one request's first round on a small model, and the round itself."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        pool = LAYERS * HEADS * CANDIDATES
        self.k_pool, self.v_pool = (torch.randn(pool, HEAD_DIM, generator=generator) + 0.5 for _ in range(2))
        self.queries = torch.randn(LAYERS, QUERIES, HEADS * GROUP, HEAD_DIM, generator=generator)
        self.lengths = torch.full((LAYERS, HEADS), CANDIDATES)
        slots = torch.arange(CANDIDATES)
        self.cells = torch.arange(LAYERS * HEADS).view(LAYERS, HEADS, 1) + slots * (LAYERS * HEADS)
        self.releasable = (slots >= BUDGET).expand_as(self.cells)
        demand = tuple((torch.rand(LAYERS, generator=generator) + 0.2).tolist())
        frequencies = [10_000 ** (-2 * pair / HEAD_DIM) for pair in range(HEAD_DIM // 2)]
        numbers = torch.rand(LAYERS * HEADS * GROUP * NUMBERS * len(frequencies), generator=generator).tolist()
        queries = QueryCentres.pack(LAYERS, HEADS * GROUP, frequencies, numbers)
        self.centres = Centres.of(queries)
        self.profile = LayerProfile(
            model_fingerprint="made up",
            model_name="benchmark",
            num_layers=LAYERS,
            num_kv_heads=HEADS,
            demand=demand,
            demand_by_rho=dict.fromkeys(PROFILE_RHOS, demand),
            probes_digest="none",
            created="2026-01-01",
            tool_version="0",
            queries=queries,
        )

    def run(self, triple: Triple) -> None:
        """One round; the pools are changed in place, which costs the same each time."""
        scorer = SCORERS[triple.scorer]
        window = scorer.window
        candidates = Candidates(
            queries_RWQD=self.queries,
            keys_RHND=self.k_pool[self.cells],
            values_RHND=self.v_pool[self.cells] if scorer.reads_values else None,
            lengths_RH=self.lengths,
            budget=BUDGET,
            seeds_R=torch.arange(LAYERS),
            positions_R=torch.full((LAYERS,), CANDIDATES),
            centres=self.centres,
        )
        scores = levels.score_candidates(triple.scorer, candidates).scores_RHN
        per_layer = levels.layer_budgets(
            triple.layer,
            BUDGET * LAYERS * HEADS,
            self.profile,
            num_layers=LAYERS,
            available=self.lengths.sum(-1),
            window_cells=window * HEADS,
            scores=scores,
            lengths=self.lengths,
        )
        counts = levels.route(triple.head, scores, per_layer, lengths=self.lengths, window=window)
        keep = keep_top(scores, self.lengths, counts)
        request = torch.zeros(LAYERS, dtype=torch.int64)
        compact_cells(self.k_pool, self.v_pool, self.cells, self.lengths, keep, self.releasable, request, 1)


def measure_rounds() -> list[RoundTiming]:
    """Times a round of every named method."""
    rounds = Rounds()
    times_ms: dict[str, list[float]] = {name: [] for name in NAMED_METHODS}
    for turn in range(TURNS + 1):
        for name, triple in NAMED_METHODS.items():
            start = time.perf_counter()
            rounds.run(triple)
            if turn:  # the first one warms up
                times_ms[name].append((time.perf_counter() - start) * 1e3)
    return [_timing(name, runs_ms, times_ms[BASELINE]) for name, runs_ms in times_ms.items()]


def _timing(name: str, runs_ms: list[float], baseline_ms: list[float]) -> RoundTiming:
    ratios = [run / base for run, base in zip(runs_ms, baseline_ms, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return RoundTiming(name, statistics.median(runs_ms), min(runs_ms), middle, low, high)


def table(timings: list[RoundTiming]) -> Table:
    """One line per method."""
    sizes = f"L={LAYERS} H={HEADS} G={GROUP} N={CANDIDATES} D={HEAD_DIM} S={BUDGET}"
    result = Table(title=f"A whole round, {sizes}, float32, {TURNS} turns of all methods")
    result.add_column("method")
    for column in ("median ms", "fastest", f"of {BASELINE}", "quartiles"):
        result.add_column(column, justify="right")
    for timing in timings:
        quartiles = f"{timing.ratio_low:.2f} to {timing.ratio_high:.2f}"
        result.add_row(
            timing.method, f"{timing.median_ms:.2f}", f"{timing.fastest_ms:.2f}", f"{timing.ratio:.2f}", quartiles
        )
    return result
