"""Runs the exactness checks: engines in processes of their own, then the oracle on what they left."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress
from rich.table import Table

from reasonserve.bench.exact import work
from reasonserve.bench.exact.oracle import Oracle
from reasonserve.bench.exact.records import RoundRecord, read_records
from reasonserve.bench.exact.verdicts import Verdict, against_stock, among_neighbours
from reasonserve.bench.exact.work import Setup
from reasonserve.bench.job import Job, Results, run_job
from reasonserve.engine.recorder import RECORD_VARIABLE


@dataclass(frozen=True, slots=True)
class Row:
    """One check.

    Attributes:
        check: What was compared.
        judge: With what.
        tokens: Tokens of each request.
        rounds: Rounds that ran in all of them.
        verdicts: One per request.
    """

    check: str
    judge: str
    tokens: int
    rounds: int
    verdicts: tuple[Verdict, ...]

    def count(self, outcome: str) -> int:
        """Returns how many requests ended so."""
        return sum(v.outcome == outcome for v in self.verdicts)


def measure(setup: Setup, model: str, prompts: list[list[int]], progress: Progress) -> list[Row]:
    """Runs stock SGLang and ReasonServe on the same requests and judges every one.

    Raises:
        JobFailedError: An engine's process failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = progress.add_task("Engines", total=2)
        results: dict[str, Results] = {}
        for engine in ("stock", "reasonserve"):
            progress.update(task, description=f"Running {engine}")
            (folder / engine).mkdir()
            results[engine] = run_job(_job(engine, setup, model, prompts, folder), folder / engine, timeout_s=14400)
            progress.advance(task)
        judge = _Judge(setup, prompts, results, folder, Oracle(model), progress)
        return [judge.dense(), *judge.rounds(), judge.neighbours("stock"), judge.neighbours("reasonserve")]


def table(rows: Sequence[Row]) -> Table:
    """Returns a line per check."""
    shown = Table(title="Greedy tokens in float32", title_justify="left")
    for column in ("check", "judge", "requests", "tokens", "rounds", "identical", "excused", "wrong", "closest call"):
        shown.add_column(column, justify="left" if column in ("check", "judge") else "right")
    for row in rows:
        margins = [v.margin for v in row.verdicts if v.outcome != "identical"]
        counts = [row.count(outcome) for outcome in ("identical", "excused", "wrong")]
        cells = (len(row.verdicts), row.tokens, row.rounds, *counts)
        shown.add_row(row.check, row.judge, *map(str, cells), f"{max(margins):.1e}" if margins else "")
    return shown


def as_json(setup: Setup, rows: Sequence[Row]) -> dict[str, Any]:
    """Returns every verdict."""
    return {"setup": asdict(setup), "rows": [asdict(row) for row in rows]}


def _job(engine: str, setup: Setup, model: str, prompts: list[list[int]], folder: Path) -> Job:
    stock = engine == "stock"
    waves = [work.dense_wave(setup, prompts, stock=stock)]
    waves += [] if stock else work.round_waves(setup, prompts)
    waves += work.neighbour_waves(setup, prompts, stock=stock)
    common = {"engine": engine, "model": model, "dtype": "float32", "pool_slots": setup.pool_slots, "waves": waves}
    return common | ({} if stock else {"environment": {RECORD_VARIABLE: str(folder / engine)}})


class _Judge:
    """Reads what the engines left and compares it."""

    def __init__(
        self,
        setup: Setup,
        prompts: list[list[int]],
        results: dict[str, Results],
        folder: Path,
        oracle: Oracle,
        progress: Progress,
    ) -> None:
        self._setup, self._prompts, self._results, self._folder = setup, prompts, results, folder
        self._oracle, self._progress = oracle, progress

    def dense(self) -> Row:
        """Judges a budget above the length against stock."""
        stock, ours = self._results["stock"], self._results["reasonserve"]
        names = [f"dense-{n}" for n in range(self._setup.dense_prompts)]
        verdicts = [against_stock(n, ours[n]["token_ids"], stock[n]["token_ids"], stock[n]["margins"]) for n in names]
        assert not any(ours[n]["kv"]["rounds"] for n in names), "no round runs below the budget"
        return Row("budget above the length", "stock SGLang", self._setup.dense_tokens, 0, tuple(verdicts))

    def rounds(self) -> list[Row]:
        """Judges bounded requests by the oracle."""
        rows = []
        for budget in self._setup.budgets:
            for mode in ("pinned", "evictable"):
                names = [work.round_id(budget, mode, n) for n in range(self._setup.round_prompts)]
                records = [self._records(n) for n in names]
                steps = zip(names, self._prompts, records, strict=False)
                verdicts = [self._by_oracle(*step) for step in self._progress.track(list(steps), description="Oracle")]
                check = f"reasonalloc, budget {budget}, {mode}"
                count = sum(map(len, records))
                rows.append(Row(check, "transformers", self._setup.round_tokens, count, tuple(verdicts)))
        return rows

    def neighbours(self, engine: str) -> Row:
        """Judges requests among others against the same requests alone."""
        results, verdicts, count = self._results[engine], [], 0
        for n in range(self._setup.targets):
            alone, among = (results[f"{where}-{n}"]["token_ids"] for where in ("alone", "among"))
            prompt = work.marked(self._prompts, n)
            stock = engine == "stock"
            records = ([], []) if stock else (self._records(f"alone-{n}"), self._records(f"among-{n}"))
            logits = self._oracle.logits(prompt, alone, records[0])
            verdicts.append(among_neighbours(f"target-{n}", alone, among, records, logits, len(prompt)))
            count += len(records[0]) + len(records[1])
        check = f"alone and in a batch of {self._setup.crowd}"
        return Row(check, "stock with itself" if engine == "stock" else "itself", len(alone), count, tuple(verdicts))

    def _records(self, request: str) -> list[RoundRecord]:
        return read_records(self._folder / "reasonserve", request)

    def _by_oracle(self, request: str, prompt: list[int], records: list[RoundRecord]) -> Verdict:
        tokens = self._results["reasonserve"][request]["token_ids"]
        divergences = self._oracle.judge(prompt, tokens, records)
        if not divergences:
            return Verdict(request, "identical")
        return Verdict(request, "wrong", divergences[0].index, divergences[0].margin, "logits")
