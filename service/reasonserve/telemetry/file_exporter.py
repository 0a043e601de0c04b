"""Spans as JSON lines in one file that many processes append to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult


class FileSpanExporter(SpanExporter):
    """Appends the spans of a call with a single ``write`` to a descriptor in ``O_APPEND`` mode.

    The kernel places such a write at the file's end as a whole, so lines of different processes do not mix.

    Args:
        path: The file; it and its folder are created, readable by the owner alone.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Writes spans; a full disk is reported as failure, never raised into the request that is traced."""
        try:
            os.write(self._descriptor, b"".join(_line(span) for span in spans))
        except OSError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)


def _line(span: ReadableSpan) -> bytes:
    return orjson.dumps(span_record(span), option=orjson.OPT_APPEND_NEWLINE)


def span_record(span: ReadableSpan) -> dict[str, Any]:
    """Returns a span as plain data: ids in hexadecimal, times in nanoseconds since the epoch."""
    context = span.get_span_context()
    assert context is not None
    return {
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
        "parent_id": f"{span.parent.span_id:016x}" if span.parent else None,
        "name": span.name,
        "kind": span.kind.name,
        "start_ns": span.start_time,
        "end_ns": span.end_time,
        "status": span.status.status_code.name,
        "attributes": dict(span.attributes or {}),
        "events": [
            {"name": event.name, "time_ns": event.timestamp, "attributes": dict(event.attributes or {})}
            for event in span.events
        ],
    }
