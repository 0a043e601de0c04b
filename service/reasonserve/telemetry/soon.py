"""What is told of a request is written soon after it happened, and not while the request waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter


def soon(action: Callable[[], object]) -> None:
    """Has an action done when the event loop gets to it, after what runs now; does it at once where no loop runs."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        action()
    else:
        loop.call_soon(action)


class SoonProcessor(SpanProcessor):
    """Exports finished spans, as soon as `soon` does.

    A batch's thread would be later still, and what a killed process had not sent would be more.

    Args:
        exporter: Where they go, those that wait in one call.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._ended: deque[ReadableSpan] = deque()

    def on_end(self, span: ReadableSpan) -> None:
        """Has a sampled span exported."""
        context = span.get_span_context()
        if context is None or not context.trace_flags.sampled:
            return
        self._ended.append(span)
        soon(self._export)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Exports what waits."""
        self._export()
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """Exports what waits, and ends the exporter."""
        self._export()
        self._exporter.shutdown()

    def _export(self) -> None:
        batch: list[ReadableSpan] = []
        while self._ended:
            batch.append(self._ended.popleft())
        if batch:
            self._exporter.export(batch)
