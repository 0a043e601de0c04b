"""What a noisy tenant costs a guaranteed one: with ReasonServe's admission, and on stock SGLang."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress
from rich.table import Table

from reasonserve.bench.job import run_job

MOST_STEPS_LONGER = 2
"""Engine steps by which the noise may lengthen the wait for a first prefill, at the 95th percentile."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The load, the same for both engines.

    Attributes:
        pool_slots: KV pool.
        guaranteed: The paying tenant's guarantee, in slots.
        noisy_limit: The noisy tenant's limit; it keeps requests for 20 times as much outstanding.
        requests: Requests of the paying tenant in each phase.
        interval_s: Mean seconds between two of them; exponential.
        prompt: Prompt tokens of every request.
        new_tokens: Tokens that a paying request generates.
        noisy_tokens: Tokens that a noisy one generates.
        budget: Default budget S of both tenants.
        buffer: Tail slots.
        warm_up_s: Seconds of noise before the paying tenant comes.
        patience_s: Seconds that are waited for the last of its requests.
    """

    pool_slots: int
    guaranteed: int
    noisy_limit: int
    requests: int
    interval_s: float
    prompt: int
    new_tokens: int
    noisy_tokens: int
    budget: int
    buffer: int
    warm_up_s: float
    patience_s: float


FULL = Setup(
    pool_slots=4096,
    guaranteed=2048,
    noisy_limit=4096,
    requests=60,
    interval_s=1.5,
    prompt=48,
    new_tokens=48,
    noisy_tokens=512,
    budget=128,
    buffer=64,
    warm_up_s=15.0,
    patience_s=60.0,
)
QUICK = Setup(
    pool_slots=1536,
    guaranteed=768,
    noisy_limit=1536,
    requests=12,
    interval_s=1.5,
    prompt=32,
    new_tokens=24,
    noisy_tokens=256,
    budget=96,
    buffer=32,
    warm_up_s=8.0,
    patience_s=20.0,
)


@dataclass(frozen=True, slots=True)
class Row:
    """The paying tenant in one phase.

    Attributes:
        engine: "reasonserve" or "stock".
        phase: "alone" or "noise".
        refused: Its requests that were refused.
        unserved: Its requests that had not begun when the phase ended; their waits are counted up to there.
        wait_p50_s: From arrival to the first prefill.
        wait_p95_s: The same.
        wait_p95_steps: Engine steps in that time.
        ttft_p50_s: To the first token.
        ttft_p95_s: The same.
        tokens_per_s: Of one request while it decodes, on average; None where none ended.
        step_ms: Median time of an engine step.
        noisy_tokens_per_s: What the noisy tenant got.
        noisy_refused: How often it was refused.
    """

    engine: str
    phase: str
    refused: int
    unserved: int
    wait_p50_s: float
    wait_p95_s: float
    wait_p95_steps: float
    ttft_p50_s: float
    ttft_p95_s: float
    tokens_per_s: float | None
    step_ms: float
    noisy_tokens_per_s: float
    noisy_refused: int


def measure(setup: Setup, model: str, progress: Progress) -> list[Row]:
    """Runs both engines in both phases and returns a row for each.

    Raises:
        JobFailedError: An engine's process failed.
    """
    rows: list[Row] = []
    task = progress.add_task("Engines", total=2)
    for engine in ("reasonserve", "stock"):
        progress.update(task, description=f"Running {engine}, alone and under noise")
        with tempfile.TemporaryDirectory() as folder:
            results = run_job(_job(engine, setup, model), Path(folder))
        rows += [to_row(engine, phase, figures) for phase, figures in results["phases"].items()]
        progress.advance(task)
    return rows


def faults(rows: list[Row]) -> list[str]:
    """Returns how ReasonServe's isolation fell short of what it promises; empty where it did not."""
    alone, noise = (
        next(r for r in rows if (r.engine, r.phase) == ("reasonserve", phase)) for phase in ("alone", "noise")
    )
    found = []
    if noise.refused or noise.unserved:
        found.append(f"{noise.refused} requests of the guaranteed tenant were refused, {noise.unserved} never ran")
    longer = noise.wait_p95_steps - alone.wait_p95_steps
    if longer > MOST_STEPS_LONGER:
        found.append(f"the wait at the 95th percentile is {longer:.1f} engine steps longer than alone")
    return found


def table(rows: list[Row]) -> Table:
    """Returns the phases side by side."""
    shown = Table(title="The guaranteed tenant, alone and beside a noisy one", title_justify="left")
    columns = ("wait p50", "wait p95", "steps p95", "TTFT p50", "TTFT p95", "tokens/s", "step", "refused", "unserved")
    shown.add_column("engine")
    shown.add_column("phase")
    for column in (*columns, "noisy tokens/s"):
        shown.add_column(column, justify="right")
    for row in rows:
        seconds = (row.wait_p50_s, row.wait_p95_s, row.ttft_p50_s, row.ttft_p95_s)
        wait_p50, wait_p95, ttft_p50, ttft_p95 = (f"{value:.2f} s" for value in seconds)
        at_least = "≥ " if row.unserved else ""
        shown.add_row(
            row.engine,
            row.phase,
            *(at_least + wait_p50, at_least + wait_p95, f"{at_least}{row.wait_p95_steps:.0f}"),
            *(at_least + ttft_p50, at_least + ttft_p95),
            "-" if row.tokens_per_s is None else f"{row.tokens_per_s:.1f}",
            *(f"{row.step_ms:.0f} ms", str(row.refused), str(row.unserved), f"{row.noisy_tokens_per_s:.0f}"),
        )
    return shown


def as_json(setup: Setup, rows: list[Row]) -> dict[str, Any]:
    """Returns every figure."""
    return {"setup": asdict(setup), "rows": [asdict(row) for row in rows], "faults": faults(rows)}


def to_row(engine: str, phase: str, figures: dict[str, Any]) -> Row:
    """Returns a phase's row."""
    requests = [r for r in figures["requests"] if not r["refused"]]
    ended = [r for r in requests if r["seconds"]]
    gaps = [b - a for a, b in zip(figures["step_times"], figures["step_times"][1:], strict=False)]
    return Row(
        engine=engine,
        phase=phase,
        refused=len(figures["requests"]) - len(requests),
        unserved=sum(not r["served"] for r in requests),
        wait_p50_s=percentile([r["wait_s"] for r in requests], 50),
        wait_p95_s=percentile([r["wait_s"] for r in requests], 95),
        wait_p95_steps=percentile([float(r["wait_steps"]) for r in requests], 95),
        ttft_p50_s=percentile([r["ttft_s"] for r in requests], 50),
        ttft_p95_s=percentile([r["ttft_s"] for r in requests], 95),
        tokens_per_s=statistics.mean((r["tokens"] - 1) / r["seconds"] for r in ended) if ended else None,
        step_ms=1000 * statistics.median(gaps) if gaps else 0.0,
        noisy_tokens_per_s=figures["noisy_tokens"] / figures["seconds"],
        noisy_refused=figures["noisy_refused"],
    )


def percentile(values: list[float], percent: int) -> float:
    """Returns a percentile as the smallest value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)] if ordered else 0.0


def _job(engine: str, setup: Setup, model: str) -> dict[str, Any]:
    return {
        "module": "reasonserve.bench.isolation_job",
        "engine": engine,
        "model": model,
        "dtype": "bfloat16",
        "pool_slots": setup.pool_slots,
        "strict_checks": False,
        # Else the scheduler keeps to itself when a request first ran, and when most of its steps ended.
        "arguments": {"enable_metrics": True, "load_snapshot_publish_interval": 1},
        "setup": asdict(setup),
    }
