"""``plan``: how many requests a GPU holds, with and without KV budgets."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from reasonserve.cli import options
from reasonserve.cli.output import out, table
from reasonserve.kv import DEFAULT_BUFFER_TOKENS
from reasonserve.plan.models import KNOWN_MODELS, find_shape
from reasonserve.plan.sizing import DEFAULT_MEMORY_FRACTION, GPU_MIB, Demand
from reasonserve.plan.sizing import plan as size
from reasonserve.plan.table import COLUMNS, cells, markdown

Models = Annotated[list[str], typer.Option("--model", "-m", help=f"Folder, or one of {', '.join(KNOWN_MODELS)}.")]
Gpus = Annotated[list[str], typer.Option("--gpu", "-g", help=f"GiB of memory, or one of {', '.join(GPU_MIB)}.")]
Budgets = Annotated[list[int], typer.Option("--budget", "-b", help="KV budget of a request, in tokens.")]


def plan(
    model: Models,
    gpu: Gpus = ["h200"],  # noqa: B006  typer copies it
    budget: Budgets = [2048],  # noqa: B006  likewise
    context: Annotated[int, typer.Option(help="Prompt and output together, in tokens.")] = 32768,
    prompt: Annotated[int, typer.Option(help="Tokens of a prompt.")] = 1024,
    buffer: Annotated[int, typer.Option(help="Newest tokens between two rounds.")] = DEFAULT_BUFFER_TOKENS,
    requests: Annotated[int, typer.Option(help="Requests at a time that replicas are counted for.")] = 256,
    dtype: Annotated[str, typer.Option(help="Element type of weights and cache.")] = "bfloat16",
    fraction: Annotated[
        float, typer.Option(help="Share of a GPU's memory for weights and KV pool.")
    ] = DEFAULT_MEMORY_FRACTION,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Size replicas from a model's shape and a GPU's memory; options that repeat make rows.

    Every request is counted at its longest: the whole prompt, and all of its output or its budget with the buffer.
    """
    demands = [
        Demand(
            prompt_tokens=prompt,
            output_tokens=context - prompt,
            budget_tokens=tokens,
            buffer_tokens=buffer,
            requests=requests,
        )
        for tokens in budget
    ]
    shapes = [find_shape(name) for name in model]
    plans = [size(s, g, d, dtype=dtype, fraction=fraction) for s in shapes for g in gpu for d in demands]
    if as_json:
        out.print_json(data=[asdict(row) for row in plans])
    elif as_markdown:
        out.print(markdown(plans), end="", markup=False, soft_wrap=True)
    else:
        shown = table(*COLUMNS, title=f"{prompt} prompt + {context - prompt} output tokens, {requests} requests")
        for row in plans:
            shown.add_row(*cells(row))
        out.print(shown)
