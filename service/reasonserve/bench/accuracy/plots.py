"""Pictures of a run, as PNG files. Needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reasonserve.bench.accuracy.run import ROUND_FIELDS
from reasonserve.bench.accuracy.store import Record
from reasonserve.bench.accuracy.summary import Row

_PANELS_A_LINE = 4
_DODGE = 0.012
"""Of the axis's width, between the methods' points of one budget: intervals must not hide each other."""
_LINES = ("-", "--", "-.")
"""Once the ten colours are used up, the next ten methods have the next kind of line."""


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
        stem, title = f"{task}-{mode}", f"{task}, {mode} prompt"
        least = min(row.cell.budget for row in mine if row.cell.budget)
        smallest = [row for row in mine if row.cell.budget == least]
        at_least = f"{title}, {least} slots"
        files += [
            _curves(mine, folder / f"{stem}-budget.png", title, "slots kept in all", lambda row: row.cell.budget),
            _curves(mine, folder / f"{stem}-peak.png", title, "peak private slots", lambda row: row.peak_slots),
            _heads(smallest, records, folder / f"{stem}-heads.png", at_least),
            _layers(smallest, records, folder / f"{stem}-layers.png", at_least),
        ]
    return files


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _axes() -> Any:
    return _pyplot().subplots(figsize=(8, 4.5), layout="constrained")


def _save(figure: Any, file: Path) -> Path:
    figure.savefig(file, dpi=120)
    _pyplot().close(figure)
    return file


def _style(index: int) -> dict[str, str]:
    return {"color": f"C{index % 10}", "linestyle": _LINES[index // 10 % len(_LINES)]}


def _curves(rows: Sequence[Row], file: Path, title: str, label: str, place: Callable[[Row], float]) -> Path:
    """Right answers and their intervals; the best at the smallest budget comes first in the legend."""
    figure, axes = _axes()
    places = [place(row) for row in rows if row.cell.budget]
    dodge = _DODGE * ((max(places) - min(places)) or 1.0)
    curves = {str(row.cell.contender): [r for r in rows if r.cell.contender == row.cell.contender] for row in rows}
    bounded = {name: sorted(line, key=place) for name, line in curves.items() if line[0].cell.budget}
    for line in (line for line in curves.values() if not line[0].cell.budget):
        axes.axhline(line[0].accuracy, color="black", linestyle=":", label=str(line[0].cell.contender))
    for index, name in enumerate(sorted(bounded, key=lambda name: -bounded[name][0].accuracy)):
        line, shift = bounded[name], (index - (len(bounded) - 1) / 2) * dodge
        axes.errorbar(
            [place(row) + shift for row in line],
            [row.accuracy for row in line],
            yerr=[[row.accuracy - row.low for row in line], [row.high - row.accuracy for row in line]],
            marker="o",
            markersize=4,
            elinewidth=0.8,
            label=name,
            **_style(index),
        )
    axes.set(xlabel=label, ylabel="right answers, 95% interval", ylim=(-0.02, 1.02), title=title)
    figure.legend(loc="outside right upper", fontsize="small")
    return _save(figure, file)


def _heads(rows: Sequence[Row], records: Callable[[Row], list[Record]], file: Path, title: str) -> Path:
    """Smallest and largest head budget of each method's first sample, round by round, a panel each."""
    when, low, high = (ROUND_FIELDS.index(name) for name in ("output_tokens", "head_min", "head_max"))
    drawn = [(str(row.cell.contender), records(row)[0]["rounds"]) for row in rows]
    drawn = [(name, rounds) for name, rounds in drawn if rounds]
    lines, columns = max(1, math.ceil(len(drawn) / _PANELS_A_LINE)), min(max(1, len(drawn)), _PANELS_A_LINE)
    size = (2.6 * columns + 1, 2.2 * lines + 0.6)
    figure, panels = _pyplot().subplots(
        lines, columns, sharex=True, sharey=True, squeeze=False, figsize=size, layout="constrained"
    )
    for panel, (name, rounds) in zip(panels.flat, drawn, strict=False):
        steps = [event[when] for event in rounds]
        least, most = [event[low] for event in rounds], [event[high] for event in rounds]
        panel.fill_between(steps, least, most, alpha=0.3)
        panel.plot(steps, least, "C0", steps, most, "C0")
        panel.set_title(name, fontsize="small")
    for panel in list(panels.flat)[len(drawn) :]:
        panel.axis("off")
    figure.supxlabel("output tokens", fontsize="medium")
    figure.supylabel("tokens of a head, least to most", fontsize="medium")
    figure.suptitle(title, fontsize="medium")
    return _save(figure, file)


def _layers(rows: Sequence[Row], records: Callable[[Row], list[Record]], file: Path, title: str) -> Path:
    """Mean tokens per head of each layer, after the last round; methods with the same ones share a line."""
    figure, axes = _axes()
    alike: dict[tuple[int, ...], list[str]] = {}
    for row in rows:
        budgets = [record["layer_budgets"] for record in records(row) if record["layer_budgets"]]
        if budgets:
            means = tuple(round(sum(layer) / len(budgets)) for layer in zip(*budgets, strict=True))
            alike.setdefault(means, []).append(str(row.cell.contender))
    for index, (means, names) in enumerate(alike.items()):
        axes.step(range(len(means)), means, where="mid", label="\n".join(names), **_style(index))
    axes.set(xlabel="layer", ylabel="tokens per head", title=title)
    figure.legend(loc="outside right upper", fontsize="small")
    return _save(figure, file)
