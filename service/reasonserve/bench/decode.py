"""What the plugin costs per token beside stock SGLang: loaded but unused, in use without rounds, with rounds."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress
from rich.table import Table

from reasonserve.bench.job import Job, Results, run_job

AMPLE = {"method": "r-kv", "budget_tokens": 1 << 20}
"""A budget that no request reaches."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What every engine is given.

    Attributes:
        batches: Requests at once.
        new_tokens: Tokens that each generates.
        budget: S of the runs with rounds.
        buffer: Their tail.
        repeats: Turns that the engines take.
    """

    batches: tuple[int, ...]
    new_tokens: int
    budget: int
    buffer: int
    repeats: int


FULL = Setup(batches=(1, 32), new_tokens=768, budget=256, buffer=128, repeats=3)
QUICK = Setup(batches=(1, 8), new_tokens=400, budget=256, buffer=128, repeats=1)


@dataclass(frozen=True, slots=True)
class Row:
    """One way to decode one batch, in all turns.

    Attributes:
        engine: "stock", "loaded", "no rounds" or "rounds".
        batch: Requests at once.
        tokens_per_s: Output tokens over wall-clock time, in each turn.
        processor_ms: Processor time of the engine per output token, in each turn.
        rounds_share: Share of the wall-clock time that rounds took, in each turn; prefill is counted as well.
    """

    engine: str
    batch: int
    tokens_per_s: tuple[float, ...]
    processor_ms: tuple[float, ...]
    rounds_share: tuple[float, ...]


def measure(setup: Setup, model: str, prompts: list[list[int]], progress: Progress) -> list[Row]:
    """Runs stock SGLang, SGLang with the plugin loaded, and ReasonServe, in turns.

    Raises:
        JobFailedError: An engine's process failed.
    """
    seen: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    jobs = {"stock": _job("stock", setup, model, prompts), "loaded": _job("stock", setup, model, prompts)}
    jobs["loaded"]["environment"] = {"SGLANG_PLUGINS": "reasonserve,reasonserve_cpu"}
    jobs["ours"] = _job("reasonserve", setup, model, prompts)
    turns = [name for _ in range(setup.repeats) for name in jobs]
    for name in progress.track(turns, description="Running engines"):
        with tempfile.TemporaryDirectory() as folder:
            results = run_job(jobs[name], Path(folder))
        for wave, figures in zip(jobs[name]["waves"], results["waves"], strict=True):
            engine = name if name != "ours" else wave[0]["id"].split("/")[0]
            seen.setdefault((engine, len(wave)), []).append(_figures(wave, figures, results))
    return [Row(*key, *zip(*runs, strict=True)) for key, runs in sorted(seen.items(), key=lambda item: item[0][1])]


def table(rows: Sequence[Row]) -> Table:
    """Returns the ways side by side; ratios are taken in each turn and told by median and range."""
    shown = Table(title="Decoding, beside stock SGLang", title_justify="left")
    for column in ("batch", "engine", "tokens/s", "of stock", "processor ms/token", "of stock", "rounds' share"):
        shown.add_column(column, justify="left" if column == "engine" else "right")
    stock = {row.batch: row for row in rows if row.engine == "stock"}
    for row in rows:
        base = stock[row.batch]
        shown.add_row(
            str(row.batch),
            row.engine,
            f"{statistics.median(row.tokens_per_s):.1f}",
            _ratios(row.tokens_per_s, base.tokens_per_s),
            f"{statistics.median(row.processor_ms):.2f}",
            _ratios(base.processor_ms, row.processor_ms),
            f"{statistics.median(row.rounds_share):.2%}",
        )
    return shown


def _ratios(over: Sequence[float], under: Sequence[float]) -> str:
    """Returns the median of the ratios of each turn and, of several, the smallest and the largest."""
    found = [a / b for a, b in zip(over, under, strict=True)]
    spread = f" ({min(found):.3f}-{max(found):.3f})" if len(found) > 1 else ""
    return f"{statistics.median(found):.3f}{spread}"


def as_json(setup: Setup, rows: Iterable[Row]) -> dict[str, Any]:
    """Returns every figure."""
    return {"setup": asdict(setup), "rows": [asdict(row) for row in rows]}


def _job(engine: str, setup: Setup, model: str, prompts: list[list[int]]) -> Job:
    rounds = {"method": "r-kv", "budget_tokens": setup.budget, "buffer_tokens": setup.buffer}
    ways = {"stock": None} if engine == "stock" else {"no rounds": AMPLE, "rounds": rounds}
    waves = [
        [
            {"id": f"{way}/{batch}/{n}", "input_ids": [1000 * batch + n, *prompt], "kv": kv}
            | {"sampling": {"max_new_tokens": setup.new_tokens}}
            for n, prompt in enumerate(prompts[:batch])
        ]
        for way, kv in ways.items()
        for batch in setup.batches
    ]
    slots = max(setup.batches) * (setup.new_tokens + max(len(p) for p in prompts) + 8)
    common = {"engine": engine, "model": model, "dtype": "bfloat16", "pool_slots": slots}
    return {**common, "strict_checks": False, "waves": waves}


def _figures(wave: list[dict[str, Any]], figures: dict[str, float], results: Results) -> tuple[float, float, float]:
    outputs = [results[request["id"]] for request in wave]
    tokens = sum(len(output["token_ids"]) for output in outputs)
    assert tokens == len(wave) * wave[0]["sampling"]["max_new_tokens"], "every request generates its whole length"
    rounds_s = sum(event["seconds"] for output in outputs for event in output.get("kv", {}).get("rounds", ()))
    seconds = figures["seconds"]
    return tokens / seconds, figures["processor_s"] / tokens * 1e3, rounds_s / seconds
