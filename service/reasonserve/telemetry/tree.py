"""The spans of one trace as a tree beside a time line, for a terminal; pure but for reading the file."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from reasonserve.errors import NotFoundError
from reasonserve.telemetry import names

Record = Mapping[str, Any]

BAR_WIDTH = 16
HOPS = ("route_to_replica", "replica_handle_request")
"""Ray Serve's own steps from process to process, by how their names begin."""
_RPC = re.compile(r"/[\w.]+/(?=\w+$)")
"""Package and service before the method of an RPC."""
MOST_FIGURES = 6
"""A longer list of figures is told by its smallest and its largest."""


class Row(NamedTuple):
    """One line: a span or an event of one. Times in nanoseconds since the epoch."""

    guide: str
    name: str
    style: str
    start_ns: int
    end_ns: int | None
    details: str


def read_trace(path: Path, trace_id: str) -> list[Record]:
    """Returns the spans of a trace, as ``file_exporter.span_record`` wrote them, in the order they began.

    Raises:
        NotFoundError: The file has no such trace.
    """
    # Most lines are of other traces: the id is looked for before the line is parsed.
    lines = path.read_text().splitlines() if path.exists() else []
    spans = [span for line in lines if trace_id in line and (span := json.loads(line))["trace_id"] == trace_id]
    if not spans:
        raise NotFoundError(f"There is no trace {trace_id}; was it sampled, and was it made on this machine?")
    return sorted(spans, key=lambda span: span["start_ns"])


def without_hops(spans: Sequence[Record]) -> list[Record]:
    """Returns the spans without Ray Serve's hops; what was below one is below the span above it.

    The hop on which a call was run again stays, for it says so.
    """
    hops = {
        span["span_id"]: span["parent_id"] for span in spans if span["name"].startswith(HOPS) and not _retries(span)
    }
    kept: list[Record] = []
    for span in spans:
        if span["span_id"] not in hops:
            parent = span["parent_id"]
            while parent in hops:
                parent = hops[parent]
            kept.append({**span, "parent_id": parent})
    return kept


def _retries(span: Record) -> bool:
    return any(event["name"] == names.EVENT_RETRY for event in span["events"])


def trace_tree(spans: Sequence[Record], *, hops: bool = True) -> Table:
    """Returns spans under their parents with offset, duration, a bar on the trace's time line and figures.

    A span whose parent is not among them is shown at the root.

    Args:
        spans: The spans of one trace.
        hops: Show Ray Serve's own steps too.
    """
    shown = list(spans) if hops else without_hops(spans)
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.title = f"trace {spans[0]['trace_id']}" if spans else "no spans"
    table.add_column("span", no_wrap=True, overflow="ellipsis")
    for column in ("at", "took"):
        table.add_column(column, justify="right", no_wrap=True, min_width=8)
    table.add_column("", no_wrap=True, min_width=BAR_WIDTH)
    table.add_column("figures", overflow="fold", min_width=24)
    if not shown:
        return table
    first = min(span["start_ns"] for span in shown)
    last = max(span["end_ns"] for span in shown)
    for row in _rows(shown):
        took = "" if row.end_ns is None else _time(row.end_ns - row.start_ns)
        end_ns = row.start_ns if row.end_ns is None else row.end_ns
        table.add_row(
            Text(row.guide, style="dim") + Text(row.name, style=row.style),
            Text(_time(row.start_ns - first), style="dim"),
            Text(took, style="green"),
            Text(_bar(row.start_ns - first, end_ns - first, last - first), style=row.style),
            Text(row.details, style="dim"),
        )
    return table


def _rows(spans: Sequence[Record]) -> Iterator[Row]:
    """Yields the lines of a tree, depth first, in the order that things began."""
    known = {span["span_id"] for span in spans}
    children: dict[str | None, list[Record]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: span["start_ns"]):
        children[span["parent_id"] if span["parent_id"] in known else None].append(span)
    stack = [(span, "", "") for span in reversed(children[None])]
    while stack:
        span, guide, below = stack.pop()
        style = "red" if span["status"] == "ERROR" else "cyan"
        yield Row(
            guide, _RPC.sub("", span["name"]), style, span["start_ns"], span["end_ns"], _details(span["attributes"])
        )
        inner = children[span["span_id"]]
        for event in span["events"]:
            figures = " ".join(f"{_short(key)}={_figure(value)}" for key, value in event["attributes"].items())
            yield Row(
                below + ("│ " if inner else "  ") + "· ", event["name"], "yellow", event["time_ns"], None, figures
            )
        for index, child in reversed(list(enumerate(inner))):
            ends = index == len(inner) - 1
            stack.append((child, below + ("└ " if ends else "├ "), below + ("  " if ends else "│ ")))


def _bar(start: int, end: int, whole: int) -> str:
    """Returns a bar from start to end on a line of `whole`; at least one mark."""
    scale = BAR_WIDTH / max(whole, 1)
    left = min(int(start * scale), BAR_WIDTH - 1)
    return " " * left + ("━" * max(1, round(end * scale) - left) if end > start else "╵")


def _time(nanoseconds: int) -> str:
    seconds = nanoseconds / 1e9
    return f"{seconds:.2f} s" if seconds >= 10 else f"{seconds * 1e3:.1f} ms"


def _details(attributes: Mapping[str, Any]) -> str:
    return " ".join(f"{_short(key)}={_figure(attributes[key])}" for key in names.TREE_ATTRIBUTES if key in attributes)


def _short(key: str) -> str:
    return "tenant" if key == names.TENANT_ID else key.rpartition(".")[2]


def _figure(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Iterable) and not isinstance(value, str):
        items = list(value)
        if len(items) > MOST_FIGURES:
            return f"{_figure(min(items))}..{_figure(max(items))}"
        return "[" + " ".join(map(_figure, items)) + "]" if len(items) != 1 else _figure(items[0])
    return str(value)
