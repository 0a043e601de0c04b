"""The spans of one trace as a tree for a terminal; pure but for reading the file."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text
from rich.tree import Tree

from reasonserve.errors import NotFoundError
from reasonserve.telemetry import names

Record = Mapping[str, Any]


def read_trace(path: Path, trace_id: str) -> list[Record]:
    """Returns the spans of a trace, as ``file_exporter.span_record`` wrote them, in the order they began.

    Raises:
        NotFoundError: The file has no such trace.
    """
    lines = path.read_text().splitlines() if path.exists() else []
    spans = [span for span in map(json.loads, lines) if span["trace_id"] == trace_id]
    if not spans:
        raise NotFoundError(f"There is no trace {trace_id}; was it sampled, and was it made on this machine?")
    return sorted(spans, key=lambda span: span["start_ns"])


def trace_tree(spans: Sequence[Record]) -> Tree:
    """Returns spans under their parents, with durations, the attributes of interest and events.

    A span whose parent is not among them is shown at the root.
    """
    known = {span["span_id"] for span in spans}
    children: dict[str | None, list[Record]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: span["start_ns"]):
        parent = span["parent_id"]
        children[parent if parent in known else None].append(span)
    title = f"trace {spans[0]['trace_id']}" if spans else "no spans"
    tree = Tree(Text(title, style="bold"))
    stack = [(tree, span) for span in reversed(children[None])]
    while stack:
        branch, span = stack.pop()
        node = branch.add(_label(span))
        _add_events(node, span)
        stack.extend((node, child) for child in reversed(children[span["span_id"]]))
    return tree


def _label(span: Record) -> Text:
    label = Text(span["name"], style="red" if span["status"] == "ERROR" else "cyan")
    label.append(f"  {(span['end_ns'] - span['start_ns']) / 1e6:.1f} ms", style="green")
    shown = [f"{_short(key)}={span['attributes'][key]}" for key in names.TREE_ATTRIBUTES if key in span["attributes"]]
    return label.append("  " + " ".join(shown), style="dim") if shown else label


def _add_events(node: Tree, span: Record) -> None:
    for event in span["events"]:
        at_ms = (event["time_ns"] - span["start_ns"]) / 1e6
        figures = " ".join(f"{_short(key)}={_figure(value)}" for key, value in event["attributes"].items())
        node.add(Text(f"+{at_ms:.1f} ms {event['name']}  {figures}", style="yellow"))


def _short(key: str) -> str:
    return key.rpartition(".")[2]


def _figure(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return "[" + " ".join(map(_figure, value)) + "]"
    return str(value)
