"""Pictures of a run, as PNG files. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reasonserve.bench.accuracy.run import ROUND_FIELDS
from reasonserve.bench.accuracy.store import Record
from reasonserve.bench.accuracy.summary import Row


def plot_all(rows: Sequence[Row], records: Callable[[Row], list[Record]], folder: Path) -> list[Path]:
    """Draws a run.

    Args:
        rows: Its figures.
        records: Returns a row's samples.
        folder: Where to write; made when absent.

    Returns:
        The files: accuracy against budget, accuracy against peak private slots, head budgets over time, layer budgets.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for task, mode in dict.fromkeys((row.cell.task, row.cell.mode) for row in rows if row.cell.budget):
        mine = [row for row in rows if row.cell.task == task and (row.cell.mode == mode or not row.cell.budget)]
        stem = f"{task}-{mode}"
        files.append(_curves(mine, folder / f"{stem}-budget.png", "slots kept in all", lambda row: row.cell.budget))
        files.append(_curves(mine, folder / f"{stem}-peak.png", "peak private slots", lambda row: row.peak_slots))
        files.append(_heads(mine, records, folder / f"{stem}-heads.png"))
        files.append(_layers(mine, records, folder / f"{stem}-layers.png"))
    return files


def _axes() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(7, 4.5), layout="constrained")


def _save(figure: Any, file: Path) -> Path:
    from matplotlib import pyplot

    figure.savefig(file, dpi=150)
    pyplot.close(figure)
    return file


def _curves(rows: Sequence[Row], file: Path, label: str, place: Callable[[Row], float]) -> Path:
    figure, axes = _axes()
    for name in dict.fromkeys(str(row.cell.contender) for row in rows):
        line = sorted((row for row in rows if str(row.cell.contender) == name), key=place)
        if line[0].cell.budget == 0:
            axes.axhline(line[0].accuracy, color="black", linestyle=":", label=name)
            continue
        errors = [[row.accuracy - row.low for row in line], [row.high - row.accuracy for row in line]]
        axes.errorbar(
            [place(row) for row in line], [row.accuracy for row in line], yerr=errors, marker="o", capsize=2, label=name
        )
    axes.set(xlabel=label, ylabel="right answers", ylim=(-0.02, 1.02), title=file.stem)
    axes.legend(fontsize="x-small")
    return _save(figure, file)


def _heads(rows: Sequence[Row], records: Callable[[Row], list[Record]], file: Path) -> Path:
    """Smallest and largest head budget of each method's first sample, round by round, at the smallest budget."""
    figure, axes = _axes()
    least = min(row.cell.budget for row in rows if row.cell.budget)
    when, low, high = (ROUND_FIELDS.index(name) for name in ("output_tokens", "head_min", "head_max"))
    for row in (row for row in rows if row.cell.budget == least):
        rounds = records(row)[0]["rounds"]
        if rounds:
            steps = [event[when] for event in rounds]
            area = axes.fill_between(
                steps, [e[low] for e in rounds], [e[high] for e in rounds], alpha=0.25, label=str(row.cell.contender)
            )
            axes.plot(steps, [e[high] for e in rounds], color=area.get_facecolor()[0][:3])
    axes.set(xlabel="output tokens", ylabel="tokens of a head, least to most", title=f"{file.stem}, {least} slots")
    axes.legend(fontsize="x-small")
    return _save(figure, file)


def _layers(rows: Sequence[Row], records: Callable[[Row], list[Record]], file: Path) -> Path:
    """Mean tokens per head of each layer, after the last round, at the smallest budget."""
    figure, axes = _axes()
    least = min(row.cell.budget for row in rows if row.cell.budget)
    for row in (row for row in rows if row.cell.budget == least):
        budgets = [record["layer_budgets"] for record in records(row) if record["layer_budgets"]]
        if budgets:
            means = [sum(layer) / len(budgets) for layer in zip(*budgets, strict=True)]
            axes.step(range(len(means)), means, where="mid", label=str(row.cell.contender))
    axes.set(xlabel="layer", ylabel="tokens per head", title=f"{file.stem}, {least} slots")
    axes.legend(fontsize="x-small")
    return _save(figure, file)
