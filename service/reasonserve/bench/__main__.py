"""``python -m reasonserve.bench``: figures beside stock SGLang's, in one run."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated

import typer
from rich.progress import Progress

from reasonserve.bench.accuracy.command import accuracy, divergence
from reasonserve.bench.control.command import control, faults
from reasonserve.bench.options import JsonFile, Model, Quick, make_console, print_machine, write_json
from reasonserve.bench.serve_soak.command import serve_soak
from reasonserve.cli.output import ErrorGroup
from reasonserve.config import DEFAULT_MODEL
from reasonserve.models.resolve import resolve_model

app = typer.Typer(add_completion=False, no_args_is_help=True, cls=ErrorGroup)


@app.callback()
def bench() -> None:
    """Benchmarks of the whole engine, beside stock SGLang on the same work."""


@app.command()
def memory(
    quick: Quick = False,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Turns that the engines take.")] = 1,
    model: Model = DEFAULT_MODEL,
    json_file: JsonFile = None,
) -> None:
    """How many requests run at once in the same pool, and how fast, with and without a budget.

    Example: python -m reasonserve.bench memory --quick --json figures.json
    """
    from reasonserve.bench import memory as comparison

    console = make_console()
    header = print_machine(console)
    setup = comparison.QUICK if quick else comparison.FULL
    folder = str(resolve_model(model))
    prompts = comparison.make_prompts(folder, setup.requests)
    with Progress(console=console, transient=True) as progress:
        rows = comparison.measure(setup, folder, prompts, repeats, progress)
    console.print(comparison.table(rows))
    write_json(json_file, header, comparison.as_json(setup, rows))


@app.command()
def attention(
    quick: Quick = False,
    dtype: Annotated[str, typer.Option("--dtype", help="bfloat16, float16 or float32.")] = "bfloat16",
    json_file: JsonFile = None,
) -> None:
    """How fast one layer's decode attention is beside SGLang's torch_native, dense and compressed.

    Example: python -m reasonserve.bench attention --quick --json attention.json
    """
    import torch

    from reasonserve.bench import attention as comparison

    console = make_console()
    header = print_machine(console)
    with Progress(console=console, transient=True) as progress:
        timings = comparison.measure(getattr(torch, dtype), quick=quick, progress=progress)
    console.print(comparison.table(timings))
    write_json(json_file, header, {"dtype": dtype, **comparison.as_json(timings)})


@app.command()
def decode(
    quick: Quick = False,
    model: Model = DEFAULT_MODEL,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Turns that the engines take. Default: 3; 1 if quick.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """What the plugin costs per token: loaded but unused, in use without rounds, and with rounds.

    Example: python -m reasonserve.bench decode --quick --json decode.json
    """
    from reasonserve.bench import decode as comparison
    from reasonserve.bench.memory import make_prompts

    console = make_console()
    header = print_machine(console)
    setup = comparison.QUICK if quick else comparison.FULL
    setup = replace(setup, repeats=repeats or setup.repeats)
    folder = str(resolve_model(model))
    with Progress(console=console, transient=True) as progress:
        rows = comparison.measure(setup, folder, make_prompts(folder, max(setup.batches)), progress)
    console.print(comparison.table(rows))
    write_json(json_file, header, comparison.as_json(setup, rows))


@app.command()
def exact(quick: Quick = False, model: Model = DEFAULT_MODEL, json_file: JsonFile = None) -> None:
    """Whether greedy tokens are those of stock SGLang, and with rounds those of transformers under masks.

    Exits with 1 if any request is wrong. Example: python -m reasonserve.bench exact --quick --json verdicts.json
    """
    from reasonserve.bench.exact import run, work

    console = make_console()
    header = print_machine(console)
    setup = work.QUICK if quick else work.FULL
    folder = str(resolve_model(model))
    prompts = work.read_prompts(folder, 64)
    with Progress(console=console, transient=True) as progress:
        rows = run.measure(setup, folder, prompts, progress)
    console.print(run.table(rows))
    write_json(json_file, header, run.as_json(setup, rows))
    if any(row.count("wrong") for row in rows):
        raise typer.Exit(1)


@app.command()
def soak(quick: Quick = False, model: Model = DEFAULT_MODEL, json_file: JsonFile = None) -> None:
    """Whether anything leaks or is lost under many unlike requests in a pool too small for them.

    SGLang's strict memory checks are on. A second run compares the prefix cache with stock SGLang's.
    Exits with 1 at any fault. Example: python -m reasonserve.bench soak --quick
    """
    from transformers import AutoConfig

    from reasonserve.bench import soak as run

    console = make_console()
    header = print_machine(console)
    setup = run.QUICK if quick else run.FULL
    folder = str(resolve_model(model))
    vocabulary = int(AutoConfig.from_pretrained(folder).vocab_size)
    with Progress(console=console, transient=True) as progress:
        found = run.measure(setup, folder, vocabulary, progress)
    console.print(run.table(found))
    write_json(json_file, header, {"setup": asdict(setup), **asdict(found)})
    if found.faults:
        raise typer.Exit(1)


@app.command()
def isolation(quick: Quick = False, model: Model = DEFAULT_MODEL, json_file: JsonFile = None) -> None:
    """What a tenant that offers 20 times its limit costs one with a guarantee, beside stock SGLang.

    Exits with 1 if the guaranteed tenant is refused, or waits over two engine steps longer at p95 than alone.
    Example: python -m reasonserve.bench isolation --quick
    """
    from reasonserve.bench import isolation as run

    console = make_console()
    header = print_machine(console)
    setup = run.QUICK if quick else run.FULL
    with Progress(console=console, transient=True) as progress:
        rows = run.measure(setup, str(resolve_model(model)), progress)
    console.print(run.table(rows))
    write_json(json_file, header, run.as_json(setup, rows))
    for fault in (found := run.faults(rows)):
        console.print(f"[red]{fault}[/red]")
    if found:
        raise typer.Exit(1)


@app.command()
def latency(
    quick: Quick = False,
    stack: Annotated[
        list[str] | None, typer.Option(help="One of the table's stacks; again for more. Default: all, side by side.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """What gateway and routing add to a call and to a streamed chunk, beside a bare gRPC server.

    Every stack that runs takes processor time, idle or not: one alone is what users run.
    Example: python -m reasonserve.bench latency --stack stack --json figures.json
    """
    from reasonserve.bench.latency import run

    for name in set(stack or ()) - set(run.STACKS):
        raise typer.BadParameter(f"{name!r} is no stack; there are: {', '.join(map(repr, run.STACKS))}.")
    console = make_console()
    header = print_machine(console)
    setup = run.QUICK if quick else run.FULL
    with Progress(console=console, transient=True) as progress:
        turns = run.measure(setup, progress, stack or tuple(run.STACKS))
    console.print(run.table(run.rows(turns)))
    console.print(run.ray_serve_llm())
    write_json(json_file, header, run.as_json(setup, turns))


@app.command()
def routing(quick: Quick = False, model: Model = DEFAULT_MODEL, json_file: JsonFile = None) -> None:
    """How much of the prompts two replicas find cached, by prefix affinity and by power of two choices.

    Exits with 1 if a request fails, affinity finds less than 1.5 times as much, or one replica gets 20% above the mean.
    Example: python -m reasonserve.bench routing --quick
    """
    from transformers import AutoConfig

    from reasonserve.bench import routing as run

    console = make_console()
    header = print_machine(console)
    setup = run.QUICK if quick else run.FULL
    folder = str(resolve_model(model))
    vocabulary = int(AutoConfig.from_pretrained(folder).vocab_size)
    with Progress(console=console, transient=True) as progress:
        rows = run.measure(setup, folder, vocabulary, progress)
    console.print(run.table(rows))
    write_json(json_file, header, run.as_json(setup, rows))
    for fault in (found := run.faults(rows)):
        console.print(f"[red]{fault}[/red]")
    if found:
        raise typer.Exit(1)


app.command()(accuracy)
app.command()(control)
app.command()(faults)
app.command()(divergence)
app.command()(serve_soak)


if __name__ == "__main__":
    app()
