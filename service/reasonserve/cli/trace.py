"""``trace``: one request through client, gateway, admission and engine."""

from __future__ import annotations

from typing import Annotated

import typer

from reasonserve.cli import options, tracing
from reasonserve.cli.output import err, out, table
from reasonserve.telemetry.tree import read_trace, trace_tree

SHOWN = 20


def trace(
    wanted: Annotated[
        str | None,
        typer.Argument(metavar="[REQUEST_ID|TRACE_ID]", help="As `generate --json` prints it. Default: list the last."),
    ] = None,
    hops: Annotated[bool, typer.Option("--hops", help="Show Ray Serve's steps from process to process too.")] = False,
    as_json: options.AsJson = False,
    state_dir: options.StateDir = None,
) -> None:
    """Show a request's trace: each step on a time line, each compression round with its figures.

    Reads the spans that the stack on this machine wrote; kept after `reasonserve down`. Without a request it lists the
    last ones.
    """
    path = tracing.trace_file(state_dir)
    if wanted is None:
        _list(tracing.last_requests(path, SHOWN), as_json=as_json)
        return
    spans = read_trace(path, tracing.find_trace_id(path, wanted))
    if as_json:
        out.print_json(data=spans)
        return
    out.print(trace_tree(spans, hops=hops))
    if not tracing.is_connected(spans):
        err.print(
            "Spans are missing: the request still runs, a process was killed, or its caller keeps its spans elsewhere."
        )


def _list(requests: list[tracing.Request], *, as_json: bool) -> None:
    if as_json:
        out.print_json(data=[request._asdict() for request in requests])
        return
    made = table("request", "began", "tenant", "seconds", "output tokens", "rounds", "error", title="Last requests")
    for request in requests:
        made.add_row(*(str(value) for value in request))
    out.print(made if requests else "No request was traced here yet. Try: reasonserve generate 'Why?' --trace")
