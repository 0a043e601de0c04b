"""Spans leave a process as whole branches: when the outermost span of a trace in this process ends, with all below it.

A collector then never holds a span whose parent was lost with its process: what a killed replica had begun is
missing as a whole, and the branch that called it says so.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

MAX_BRANCHES = 4096
"""Open branches that are remembered; past it the oldest is let go, for it will never end."""


@dataclass(slots=True)
class _Branch:
    root: int  # span id
    members: list[int] = field(default_factory=list)  # span ids
    ended: list[ReadableSpan] = field(default_factory=list)


class WholeBranches(SpanProcessor):
    """Hands finished spans on when the branch they belong to has ended.

    Args:
        inner: Exports them.
    """

    def __init__(self, inner: SpanProcessor) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._branch_of: dict[int, _Branch] = {}  # by span id, while the branch is open
        self._open: OrderedDict[int, _Branch] = OrderedDict()  # by the root's span id, oldest first

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Notes which branch a span belongs to."""
        context, parent = span.get_span_context(), span.parent
        assert context is not None
        with self._lock:
            branch = self._branch_of.get(parent.span_id) if parent is not None and not parent.is_remote else None
            if branch is None:
                branch = self._open[context.span_id] = _Branch(root=context.span_id)
            branch.members.append(context.span_id)
            self._branch_of[context.span_id] = branch
            if len(self._open) > MAX_BRANCHES:
                self._close(next(iter(self._open.values())))

    def on_end(self, span: ReadableSpan) -> None:
        """Holds a span until its branch has ended; one that ends later still follows at once."""
        context = span.get_span_context()
        assert context is not None
        with self._lock:
            branch = self._branch_of.get(context.span_id)
            if branch is not None:
                branch.ended.append(span)
                if branch.root != context.span_id:
                    return
                self._close(branch)
        for ended in branch.ended if branch else [span]:
            self._inner.on_end(ended)

    def _close(self, branch: _Branch) -> None:
        del self._open[branch.root]
        for span_id in branch.members:
            del self._branch_of[span_id]

    def shutdown(self) -> None:
        """Ends the inner processor."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Has the inner processor send what it holds; open branches stay."""
        return self._inner.force_flush(timeout_millis)
