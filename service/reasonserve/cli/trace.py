"""``trace``: one request through client, gateway, admission and engine."""

from __future__ import annotations

from typing import Annotated

import typer

from reasonserve.cli import options, tracing
from reasonserve.cli.output import out
from reasonserve.telemetry.tree import read_trace, trace_tree


def trace(
    wanted: Annotated[str, typer.Argument(metavar="REQUEST_ID|TRACE_ID", help="As `generate --json` prints it.")],
    state_dir: options.StateDir = None,
) -> None:
    """Show a request's trace as a tree, each compression round with its figures.

    Reads the spans that the stack on this machine wrote; kept after `reasonserve down`.
    """
    path = tracing.trace_file(state_dir)
    out.print(trace_tree(read_trace(path, tracing.find_trace_id(path, wanted))))
