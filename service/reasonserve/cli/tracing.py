"""Traces on the client's side: the root span of a call, and reading a finished trace back."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from opentelemetry.sdk.trace import TracerProvider
from rich.table import Table

from reasonserve.errors import NotFoundError
from reasonserve.stack.control import running
from reasonserve.stack.paths import StatePaths
from reasonserve.telemetry import names
from reasonserve.telemetry.tracing import set_up_tracing
from reasonserve.telemetry.tree import Record, read_trace, trace_tree

TRACE_FILE_VARIABLE = "REASONSERVE_TRACE_FILE"
COMPLETE_WITHIN_S = 10.0
"""The servers end their spans after the client has its answer."""
POLL_S = 0.1

_TRACE_ID = re.compile(r"[0-9a-f]{32}")


def trace_file(state_dir: Path | None) -> Path:
    """Returns the spans' file: the environment's, else the running stack's, else the state directory's."""
    if named := os.environ.get(TRACE_FILE_VARIABLE):
        return Path(named)
    paths = StatePaths.resolve(state_dir)
    state = running(paths)
    return state.trace_file if state else paths.trace_file


@contextmanager
def traced(path: Path) -> Iterator[TracerProvider]:
    """Lends a tracer provider that writes to the stack's spans; everything is written when the body ends."""
    os.environ[TRACE_FILE_VARIABLE] = str(path)
    provider = set_up_tracing("reasonserve-cli")
    try:
        yield provider
    finally:
        provider.shutdown()


def find_trace_id(path: Path, wanted: str) -> str:
    """Returns the trace id that a trace id or a request id names.

    Raises:
        NotFoundError: No span has that request id.
    """
    if _TRACE_ID.fullmatch(wanted):
        return wanted
    for line in path.read_text().splitlines() if path.exists() else ():
        span = json.loads(line)
        if span["attributes"].get(names.REQUEST_ID) == wanted:
            return str(span["trace_id"])
    raise NotFoundError(
        f"There is no trace of request {wanted}; give a request id or a trace id of a sampled call to this stack."
    )


class Request(NamedTuple):
    """One traced request, as its list shows it."""

    request_id: str
    began: str
    tenant: str
    seconds: float
    output_tokens: int
    rounds: int
    error: str


def last_requests(path: Path, most: int) -> list[Request]:
    """Returns the requests that an engine ran or admission refused last, newest first."""
    found: dict[str, Request] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        if names.REQUEST_ID not in line:
            continue
        span = json.loads(line)
        given = span["attributes"]
        is_admission = span["name"] == names.SPAN_ADMISSION
        if names.REQUEST_ID in given and not (is_admission and span["status"] != "ERROR"):
            found[given[names.REQUEST_ID]] = Request(
                request_id=given[names.REQUEST_ID],
                began=datetime.fromtimestamp(span["start_ns"] / 1e9).isoformat(" ", "seconds"),
                tenant=given.get(names.TENANT_ID, ""),
                seconds=round((span["end_ns"] - span["start_ns"]) / 1e9, 3),
                output_tokens=given.get(names.OUTPUT_TOKENS, 0),
                rounds=given.get(names.KV_ROUNDS, 0),
                error=given.get(names.ERROR_TYPE, ""),
            )
    return list(found.values())[-most:][::-1]


def is_connected(spans: Sequence[Record]) -> bool:
    """Returns whether the spans form one tree: one root, and every other span's parent among them."""
    known = {span["span_id"] for span in spans}
    orphans = [span for span in spans if span["parent_id"] not in known]
    return len(orphans) == 1 and orphans[0]["parent_id"] is None


def is_complete(spans: Sequence[Record]) -> bool:
    """Returns whether a trace of a request is connected and no replica has more to tell of it.

    The way to a replica is the last that it tells of a try, whatever became of that.
    """
    told = Counter(span["name"] for span in spans)
    return len(spans) > 2 and is_connected(spans) and told[names.SPAN_ROUTE] >= told[names.SPAN_ADMISSION]


def wait_for_trace(path: Path, trace_id: str, within_s: float = COMPLETE_WITHIN_S) -> list[Record]:
    """Returns the spans of a trace as soon as they are complete, or as they are after the wait.

    Raises:
        NotFoundError: No span of the trace was written.
    """
    deadline = time.monotonic() + within_s
    while True:
        spans = read_trace(path, trace_id)
        if is_complete(spans) or time.monotonic() > deadline:
            return spans
        time.sleep(POLL_S)


def tree_of(path: Path, trace_id: str) -> Table:
    """Returns a trace as a tree beside its time line once it is complete.

    Raises:
        NotFoundError: No span of the trace was written.
    """
    return trace_tree(wait_for_trace(path, trace_id), hops=False)
