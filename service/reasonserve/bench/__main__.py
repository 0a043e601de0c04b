"""``python -m reasonserve.bench``: figures beside stock SGLang's, in one run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import Progress

from reasonalloc.bench.machine import machine
from reasonserve.bench import memory as memory_bench
from reasonserve.config import DEFAULT_MODEL
from reasonserve.models.resolve import resolve_model

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Benchmarks of the whole engine, beside stock SGLang on the same work."""


@app.command()
def memory(
    quick: Annotated[bool, typer.Option("--quick", help="The same work at a smaller scale.")] = False,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Turns that the engines take.")] = 1,
    model: Annotated[
        str, typer.Option("--model", help="Built-in name, Hugging Face id or local folder.")
    ] = DEFAULT_MODEL,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure to this file.")] = None,
) -> None:
    """How many requests run at once in the same pool, and how fast, with and without a budget.

    Example: python -m reasonserve.bench memory --quick --json figures.json
    """
    console = Console()
    header = machine(torch.device("cpu"))
    console.print(header, soft_wrap=True)
    setup = memory_bench.QUICK if quick else memory_bench.FULL
    folder = str(resolve_model(model))
    prompts = memory_bench.make_prompts(folder, setup.requests)
    with Progress(console=console, transient=True) as progress:
        rows = memory_bench.measure(setup, folder, prompts, repeats, progress)
    console.print(memory_bench.table(rows))
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": header, **memory_bench.as_json(setup, rows)}, indent=1) + "\n")


if __name__ == "__main__":
    app()
