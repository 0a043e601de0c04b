"""Memory and speed beside stock SGLang: the same pool, prompts, lengths and sampling for both."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress
from rich.table import Table

from reasonserve.bench.job import Job, Results, run_job

QUESTIONS = (
    "Explain step by step how rainbows form.",
    "Why is the sky blue? Explain in detail.",
    "Write about the history of bread.",
    "What is 17 times 23? Think slowly, step by step.",
)
LONGEST_S = 4 * 3600.0
"""For one engine; stock SGLang takes half an hour for the full set-up on two cores."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What both engines are given.

    Attributes:
        requests: Requests that are sent at once.
        new_tokens: Tokens that each generates.
        budget: S of the bounded runs.
        buffer: Tail of the bounded runs.
        pool_slots: KV pool of both engines; too small for all dense caches at once.
        short_tokens: Tokens of the run where the pool is ample and no round runs.
        tight_without_budget: Whether ReasonServe without a budget also does the work that does not fit the pool.
    """

    requests: int
    new_tokens: int
    budget: int
    buffer: int
    pool_slots: int
    short_tokens: int
    tight_without_budget: bool = True


FULL = Setup(
    requests=32,
    new_tokens=2048,
    budget=256,
    buffer=128,
    pool_slots=14336,
    short_tokens=128,
    tight_without_budget=False,  # it would take as long as stock SGLang does
)
QUICK = Setup(
    requests=12,
    new_tokens=256,
    budget=64,
    buffer=32,
    pool_slots=960,
    short_tokens=64,
    tight_without_budget=False,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One engine on one kind of work.

    Attributes:
        engine: Which engine and method.
        work: "tight" (the pool is short) or "ample".
        most_running: Most requests that ran at once.
        could_run: Requests whose whole footprint fits the pool at once.
        seconds: Wall-clock time of the work.
        tokens_per_s: Output tokens over that time.
    """

    engine: str
    work: str
    most_running: int
    could_run: int
    seconds: float
    tokens_per_s: float


def measure(setup: Setup, model: str, prompts: list[list[int]], repeats: int, progress: Progress) -> list[Row]:
    """Runs stock SGLang and ReasonServe in turns and returns a row for each run.

    Raises:
        JobFailedError: An engine's process failed.
    """
    rows: list[Row] = []
    task = progress.add_task("Engines", total=2 * repeats)
    for _ in range(repeats):
        for engine in ("stock", "reasonserve"):
            progress.update(task, description=f"Running {engine}")
            with tempfile.TemporaryDirectory() as folder:
                job = _job(engine, setup, model, prompts)
                rows += _rows(engine, setup, prompts, job, run_job(job, Path(folder), timeout_s=LONGEST_S))
            progress.advance(task)
    return rows


def table(rows: list[Row]) -> Table:
    """Returns the runs side by side, stock first; the last column is against the stock run of the same turn."""
    shown = Table(title="Same pool, same requests", title_justify="left")
    for column in ("work", "engine", "most running", "could run", "seconds", "tokens/s", "of stock"):
        shown.add_column(column, justify="left" if column in ("work", "engine") else "right")
    stock: dict[str, float] = {}
    for row in rows:
        if row.engine == "stock":
            stock[row.work] = row.tokens_per_s
        shown.add_row(
            row.work,
            row.engine,
            str(row.most_running),
            str(row.could_run),
            f"{row.seconds:.1f}",
            f"{row.tokens_per_s:.1f}",
            f"{row.tokens_per_s / stock[row.work]:.2f}x",
        )
    return shown


def as_json(setup: Setup, rows: list[Row]) -> dict[str, Any]:
    """Returns every figure."""
    return {"setup": asdict(setup), "rows": [asdict(row) for row in rows]}


def make_prompts(model: str, count: int) -> list[list[int]]:
    """Returns chat prompts that share no prefix, so that neither engine is helped by its prefix cache."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    chats = [[{"role": "user", "content": QUESTIONS[n % len(QUESTIONS)]}] for n in range(count)]
    ids = [tokenizer.apply_chat_template(c, add_generation_prompt=True, return_dict=False) for c in chats]
    return [[100 + n, *prompt] for n, prompt in enumerate(ids)]


def _methods(engine: str, setup: Setup) -> list[tuple[str, dict[str, Any] | None]]:
    """Returns the names of an engine's runs and their KV options."""
    if engine == "stock":
        return [("stock", None)]
    bounded = {"method": "reasonalloc", "budget_tokens": setup.budget, "buffer_tokens": setup.buffer}
    return [("full", {"method": "full", "budget_tokens": 0}), (f"reasonalloc {setup.budget}", bounded)]


def _job(engine: str, setup: Setup, model: str, prompts: list[list[int]]) -> Job:
    waves: list[list[dict[str, Any]]] = []
    for name, kv in _methods(engine, setup):
        for work, tokens, first in (("ample", setup.short_tokens, 1), ("tight", setup.new_tokens, 2)):
            if (name, work) == ("full", "tight") and not setup.tight_without_budget:
                continue
            # A token of its own before each wave's prompts: nothing is found in the prefix cache.
            marked = [[1000 * len(waves) + first, *prompt] for prompt in prompts]
            few = marked[: setup.pool_slots // (2 * (len(marked[0]) + tokens))] if work == "ample" else marked
            options = {"sampling": {"max_new_tokens": tokens}} | ({} if kv is None else {"kv": kv})
            waves.append([{"id": f"{name}/{work}/{n}", "input_ids": p, **options} for n, p in enumerate(few)])
    common = {"engine": engine, "model": model, "dtype": "bfloat16", "pool_slots": setup.pool_slots}
    return {**common, "strict_checks": False, "waves": waves}


def _rows(engine: str, setup: Setup, prompts: list[list[int]], job: Job, results: Results) -> list[Row]:
    rows: list[Row] = []
    for wave, seen in zip(job["waves"], results["waves"], strict=True):
        name, work, _ = wave[0]["id"].split("/")
        tokens = wave[0]["sampling"]["max_new_tokens"]
        generated = sum(len(results[request["id"]]["token_ids"]) for request in wave)
        assert generated == tokens * len(wave), "every request generates its whole length"
        bounded = engine != "stock" and wave[0]["kv"]["method"] != "full"
        kept = min(tokens, setup.budget + setup.buffer) if bounded else tokens
        longest = max(len(prompt) for prompt in prompts) + 1
        fits = min(len(wave), setup.pool_slots // (longest + kept))
        rows.append(Row(name, work, seen["most_running"], fits, seen["seconds"], generated / seen["seconds"]))
    return rows
