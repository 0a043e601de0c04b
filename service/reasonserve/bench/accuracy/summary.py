"""Figures of a run: each cell's accuracy, and how each method compares with the one that is judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from reasonserve.bench.accuracy.plan import Cell
from reasonserve.bench.accuracy.run import Bench
from reasonserve.bench.accuracy.stats import Paired, compare, interval
from reasonserve.bench.accuracy.store import Record, SampleFile


@dataclass(frozen=True, slots=True)
class Row:
    """One cell.

    Attributes:
        cell: What was asked.
        questions: How many.
        accuracy: Share of right final answers.
        low, high: Its 95% bootstrap interval.
        part: Mean share of right parts.
        peak_slots: Mean of the most private slots that a request held.
        rounds: Mean number of rounds.
        against: The judged method less this one, on the same questions; None for itself.
    """

    cell: Cell
    questions: int
    accuracy: float
    low: float
    high: float
    part: float
    peak_slots: float
    rounds: float
    against: Paired | None

    def as_json(self) -> dict[str, Any]:
        """Returns every figure."""
        return {**asdict(self), "cell": self.cell.key()}


def records_of(bench: Bench, cell: Cell, samples: SampleFile) -> list[Record]:
    """Returns a cell's samples in the order of the questions; those that had no room are absent."""
    names = [bench.tasks[cell.task].make(index).name for index in range(bench.questions)]
    found = [samples.get(cell, name, bench.profile_id(cell)) for name in names]
    return [record for record in found if record is not None]


def summarize(bench: Bench, cells: Sequence[Cell], samples: SampleFile, judged: str) -> list[Row]:
    """Returns a row for each cell that has samples.

    Args:
        bench: What all cells share.
        cells: What was planned.
        samples: What was answered.
        judged: The contender that the others are compared with.
    """
    by_cell = {cell: records for cell in cells if (records := records_of(bench, cell, samples))}
    rows = []
    for cell, records in by_cell.items():
        rivals = [c for c in by_cell if str(c.contender) == judged and _same_work(c, cell)]
        right = [float(record["correct"]) for record in records]
        low, high = interval(right)
        rows.append(
            Row(
                cell=cell,
                questions=len(records),
                accuracy=_mean(right),
                low=low,
                high=high,
                part=_mean([record["part"] for record in records]),
                peak_slots=_mean([record["peak_slots"] for record in records]),
                rounds=_mean([len(record["rounds"]) for record in records]),
                against=_paired(by_cell[rivals[0]], records) if rivals and rivals[0] != cell else None,
            )
        )
    return rows


def _same_work(first: Cell, second: Cell) -> bool:
    return (first.task, first.mode, first.budget, first.buffer) == (
        second.task,
        second.mode,
        second.budget,
        second.buffer,
    )


def _paired(judged: Sequence[Record], other: Sequence[Record]) -> Paired | None:
    """Compares on the questions that both answered; None where there are none."""
    right = {record["name"]: float(record["correct"]) for record in other}
    both = [record for record in judged if record["name"] in right]
    if not both:
        return None
    return compare([float(record["correct"]) for record in both], [right[record["name"]] for record in both])


def table(rows: Sequence[Row], judged: str) -> Table:
    """Returns the rows, one line each."""
    shown = Table(title=f"Accuracy at equal cells; differences are those of {judged}", title_justify="left")
    for column in ("task", "prompt", "slots", "method", "n", "right", "95%", "parts", "peak", "difference", "p"):
        shown.add_column(column, justify="left" if column in ("task", "prompt", "method") else "right")
    last: tuple[str, str, int] | None = None
    for row in rows:
        cell = row.cell
        work = (cell.task, cell.mode, cell.budget)
        names = (cell.task, cell.mode, str(cell.budget or "all")) if work != last else ("", "", "")
        last = work
        shown.add_row(
            *names,
            str(cell.contender),
            str(row.questions),
            f"{row.accuracy:.3f}",
            f"{row.low:.2f}-{row.high:.2f}",
            f"{row.part:.3f}",
            f"{row.peak_slots:.0f}",
            *_difference(row.against),
        )
    return shown


def markdown(rows: Sequence[Row]) -> str:
    """Returns the rows as a Markdown table: a line for each method, a column for each budget."""
    lines = []
    works = list(dict.fromkeys((row.cell.task, row.cell.mode) for row in rows if row.cell.budget))
    for task, mode in works:
        mine = [row for row in rows if row.cell.task == task and (row.cell.mode == mode or not row.cell.budget)]
        budgets = sorted({row.cell.budget for row in mine if row.cell.budget})
        lines += [f"| {task}, {mode} | " + " | ".join(map(str, budgets)) + " |", "|---" * (len(budgets) + 1) + "|"]
        for name in dict.fromkeys(str(row.cell.contender) for row in mine):
            of_method = [row for row in mine if str(row.cell.contender) == name]
            by_budget = {row.cell.budget: _markdown_cell(row) for row in of_method}
            lines.append(f"| {name} | " + " | ".join(by_budget.get(b, by_budget.get(0, "-")) for b in budgets) + " |")
        lines.append("")
    return "\n".join(lines)


def _markdown_cell(row: Row) -> str:
    mark = ""
    if row.against is not None and row.against.low > 0:
        mark = " -"
    elif row.against is not None and row.against.high < 0:
        mark = " +"
    return f"{row.accuracy:.2f}/{row.part:.2f}{mark}"


def _difference(paired: Paired | None) -> tuple[str, str]:
    if paired is None:
        return "", ""
    return f"{paired.difference:+.3f} ({paired.low:+.2f} {paired.high:+.2f})", f"{paired.p_value:.3g}"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
