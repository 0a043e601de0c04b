"""The last changes in order, so that a watcher can go on where it stopped."""

from __future__ import annotations

from collections import deque

from reasonserve.controller.records import Change

KEPT_CHANGES = 4096


class Journal:
    """A bounded record of changes; one per ledger, and as volatile.

    Args:
        revision: The ledger's revision at the start.
        max_changes: The oldest are forgotten beyond this.
    """

    def __init__(self, revision: int, *, max_changes: int = KEPT_CHANGES) -> None:
        self._revision = revision
        self._changes: deque[Change] = deque(maxlen=max_changes)

    def append(self, change: Change) -> None:
        """Records a change that was applied; one without events is nothing to record."""
        if change.events:
            self._changes.append(change)
            self._revision = change.revision

    def since(self, revision: int) -> tuple[Change, ...] | None:
        """Returns the changes after a revision, oldest first; None when it cannot tell them."""
        following = self._revision - revision
        if not 0 <= following <= len(self._changes):
            return None
        # Revisions are consecutive, so those asked for are the last ones. Walked from the
        # new end: a watcher that keeps up pays for what is new alone.
        newest = (self._changes[-i] for i in range(1, following + 1))
        return tuple(newest)[::-1]
