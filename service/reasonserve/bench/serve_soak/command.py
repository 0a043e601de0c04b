"""The command ``serve-soak`` of ``python -m reasonserve.bench``."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from typing import Annotated

import typer
from rich.progress import Progress

from reasonserve.bench.options import JsonFile, Model, make_console, print_machine, write_json
from reasonserve.config import DEFAULT_MODEL
from reasonserve.models.resolve import resolve_model


def serve_soak(
    quick: Annotated[bool, typer.Option("--quick", help="Three minutes of load; memory is judged coarsely.")] = False,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.5, help="Minutes of load; 30 where nothing is said.")
    ] = None,
    model: Model = DEFAULT_MODEL,
    json_file: JsonFile = None,
) -> None:
    """Whether the whole stack loses, leaks or grows under load while clients leave and parts of it are killed.

    Two replicas with real engines get 70% of the load that they can answer, from four tenants, at random times. 15% of
    the requests are cancelled, 5% have their client's process killed; one replica and the controller are killed.
    Exits with 1 if a request ends as it must not, a reservation or a slot is left, or memory grows.
    Example: python -m reasonserve.bench serve-soak --model tests/data/pointer-chaser --json soak.json
    """
    from transformers import AutoConfig

    from reasonserve.bench.serve_soak import plan, report, run

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the stack too
    console = make_console()
    header = print_machine(console)
    setup = plan.QUICK if quick else plan.FULL
    if minutes is not None:
        setup = replace(setup, minutes=minutes)
    folder = str(resolve_model(model))
    vocabulary = int(AutoConfig.from_pretrained(folder).vocab_size)
    with Progress(console=console, transient=True) as progress:
        found = run.measure(setup, folder, vocabulary, progress)
    console.print(report.summary(found))
    console.print(report.ends_table(found))
    console.print(report.memory_table(found))
    write_json(json_file, header, report.as_json(found))
    for fault in found.faults:
        console.print(f"[red]{fault}[/red]", soft_wrap=True)
    if found.faults:
        raise typer.Exit(1)
