"""The command line of the accuracy benchmark."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from reasonserve.bench.accuracy import summary
from reasonserve.bench.accuracy.plan import DEFAULT_METHODS, Cell, cells, parse_contenders, parse_modes
from reasonserve.bench.accuracy.run import AT_ONCE, Bench, ask
from reasonserve.bench.accuracy.store import open_samples
from reasonserve.bench.options import JsonFile, Quick, make_console, print_machine, write_json
from reasonserve.errors import InvalidRequestError

_QUICK = {"methods": "full,reasonalloc,reasonalloc@sensitivity,r-kv", "budgets": "192", "questions": 64}

ModelFolder = Annotated[str, typer.Option("--model", help="Built-in name, local folder or Hugging Face id.")]
Tasks = Annotated[str, typer.Option("--tasks", help="Tasks, separated by commas.")]
Methods = Annotated[str, typer.Option("--methods", help="Methods or triples; @NAME names a layer profile.")]
Budgets = Annotated[str, typer.Option("--budgets", help="Slots kept in all, a pinned prompt included.")]
Modes = Annotated[str, typer.Option("--modes", help="Prompt modes: evictable, pinned.")]
Questions = Annotated[int, typer.Option("--questions", "-n", min=1, help="Questions of each cell.")]
Buffer = Annotated[int, typer.Option("--buffer", min=1, help="Tail slots between rounds.")]
Judged = Annotated[str, typer.Option("--judged", help="Method whose difference from each other one is shown.")]
Profiles = Annotated[list[str] | None, typer.Option("--profile", help="NAME=FILE: a layer profile by file.")]
Gsm8k = Annotated[Path | None, typer.Option("--gsm8k", help="GSM8K's published test questions, test.jsonl.")]
Longest = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer of gsm8k and gsm_symbolic.")]
Dtype = Annotated[str, typer.Option("--dtype", help="Of weights and cache.")]
AtOnce = Annotated[int, typer.Option("--at-once", min=1, help="Questions that run at any time.")]
Samples = Annotated[Path, typer.Option("--samples", help="JSON lines of every sample; none is asked twice.")]
Plots = Annotated[Path | None, typer.Option("--plots", help="Folder for PNG pictures.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")]


def accuracy(
    model: ModelFolder,
    tasks: Tasks = "chaser",
    methods: Methods = DEFAULT_METHODS,
    budgets: Budgets = "128,192,256,320",
    modes: Modes = "evictable",
    questions: Questions = 256,
    buffer: Buffer = 16,
    judged: Judged = "reasonalloc",
    profile: Profiles = None,
    gsm8k: Gsm8k = None,
    max_new_tokens: Longest = 512,
    dtype: Dtype = "float32",
    at_once: AtOnce = AT_ONCE,
    samples: Samples = Path("samples.jsonl"),
    plots: Plots = None,
    markdown: Markdown = False,
    quick: Quick = False,
    json_file: JsonFile = None,
) -> None:
    """How often methods are right at equal memory: tasks x methods x budgets on the real engine.

    Every cell keeps the same number of KV cells in all, which the engine's own counters must confirm. Stop it at any
    time: the next run with the same --samples goes on. Example: python -m reasonserve.bench accuracy --quick --model
    tests/data/pointer-chaser
    """
    from reasonserve.bench.accuracy.tasks import find_task
    from reasonserve.models.resolve import resolve_model

    if quick:
        methods, budgets, questions = str(_QUICK["methods"]), str(_QUICK["budgets"]), int(str(_QUICK["questions"]))
    console = make_console()
    header, folder = print_machine(console), resolve_model(model)
    found = {name: find_task(name, gsm8k, max_new_tokens) for name in tasks.split(",")}
    planned = cells(list(found), parse_modes(modes), _budgets(budgets), buffer, parse_contenders(methods))
    bench = Bench(folder, dtype, _profiles(planned, folder, profile or []), found, questions, at_once)
    rows = _measure(console, bench, planned, samples, judged, plots)
    console.print(summary.markdown(rows) if markdown else summary.table(rows, judged))
    write_json(json_file, header, {"judged": judged, "rows": [row.as_json() for row in rows]})


def divergence(
    model: ModelFolder,
    tasks: Tasks = "chaser",
    methods: Methods = "r-kv,ada-rkv,head-only,snapkv,pyramid-rkv,layer-only,reasonalloc,reasonalloc@sensitivity",
    budgets: Budgets = "128,192,256,320",
    questions: Questions = 8,
    buffer: Buffer = 16,
    profile: Profiles = None,
    gsm8k: Gsm8k = None,
    max_new_tokens: Longest = 512,
    json_file: JsonFile = None,
) -> None:
    """How far methods move the model's next-token distribution, over what it says itself with the full cache.

    No engine runs: the cache is simulated by the engine's own rounds. Example: python -m reasonserve.bench divergence
    --model tests/data/pointer-chaser
    """
    from reasonserve.bench.accuracy import divergence as replay
    from reasonserve.bench.accuracy.tasks import find_task
    from reasonserve.models.resolve import resolve_model

    console = make_console()
    header, folder, sizes = print_machine(console), resolve_model(model), _budgets(budgets)
    found = {name: find_task(name, gsm8k, max_new_tokens) for name in tasks.split(",")}
    contenders = parse_contenders(methods)
    planned = cells(list(found), ["evictable"], sizes, buffer, contenders)
    bench = Bench(folder, "float32", _profiles(planned, folder, profile or []), found, questions)
    with Progress(console=console, transient=True) as progress:
        rows = replay.measure(bench, contenders, sizes, buffer, progress)
    console.print(replay.table(rows, sizes))
    write_json(json_file, header, {"budgets": sizes, "rows": [asdict(row) for row in rows]})


def _measure(
    console: Console, bench: Bench, planned: list[Cell], samples: Path, judged: str, plots: Path | None
) -> list[summary.Row]:
    from reasonserve.models.fingerprint import fingerprint

    stored = open_samples(samples, fingerprint(bench.model))
    columns = (TextColumn("Asking"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("")
        ask(bench, planned, stored, lambda done, total: progress.update(task, completed=done, total=total))
    rows = summary.summarize(bench, planned, stored, judged)
    if plots is not None:
        from reasonserve.bench.accuracy.plots import plot_all

        plot_all(rows, lambda row: summary.records_of(bench, row.cell, stored), plots)
    return rows


def _budgets(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise InvalidRequestError(f"--budgets is {text!r}; give whole numbers separated by commas.") from None


def _profiles(planned: list[Cell], folder: Path, given: list[str]) -> dict[str, str]:
    """Returns the text of every layer profile that the plan names, checked against the model."""
    from reasonalloc.profile import LayerProfile
    from reasonserve.models.fingerprint import fingerprint
    from reasonserve.models.profiles import shipped_profile

    files = dict(word.partition("=")[::2] for word in given)
    model_fingerprint = fingerprint(folder)
    config = json.loads((folder / "config.json").read_text())
    texts = {}
    for name in dict.fromkeys(cell.contender.profile for cell in planned if cell.contender.profile):
        text = Path(files[name]).read_text() if name in files else shipped_profile(model_fingerprint, name)
        if text is None:
            raise InvalidRequestError(
                f"No {name} profile ships for this model; make one with `reasonserve profile calibrate --kind {name}` "
                f"and give it as --profile {name}=FILE."
            )
        LayerProfile.from_json(text).check_fits(
            config["num_hidden_layers"], config["num_key_value_heads"], model_fingerprint
        )
        texts[name] = text
    return texts
