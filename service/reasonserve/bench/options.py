"""Options and output that the benchmark commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from reasonalloc.bench.machine import machine

Quick = Annotated[bool, typer.Option("--quick", help="The same work at a smaller scale.")]
Model = Annotated[str, typer.Option("--model", help="Built-in name, Hugging Face id or local folder.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write every figure to this file.")]


def make_console() -> Console:
    """Returns a console that is wide enough for the tables where no terminal says how wide it is."""
    console = Console()
    return console if console.is_terminal else Console(width=140)


def print_machine(console: Console) -> str:
    """Prints and returns the machine, versions and commit: the first line of every benchmark."""
    header = machine(torch.device("cpu"))
    console.print(header, soft_wrap=True)
    return header


def write_json(json_file: Path | None, header: str, figures: dict[str, Any]) -> None:
    """Writes every figure, the machine first, where a file was asked for."""
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": header, **figures}, indent=1) + "\n")
