"""What a decode step must know of each request, on the device and by its row of ``req_to_token``.

A step finds its requests' figures with one gather, and nothing is read back from the device. The host knows what it
wrote, so that only what changed is written again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from reasonserve.engine.requests import RequestState

NUM_FIGURES = 5
"""Prefix end, tail start, table row, window row, and the length of the row at which its window's first query came."""

_Figures = tuple[int, int, int, int, int]

_NEVER = torch.iinfo(torch.int64).max
"""Where a dense request's prefix ends: the lesser of this and its length, whatever that is."""


class RowFigures:
    """Figures of every row, brought up to date before each decode step.

    A row that nobody holds, and SGLang's padding row 0, are dense and capture into the query windows' last row.

    Args:
        rows: Rows of ``req_to_token``.
        nobody: The query windows' row that belongs to nobody.
        device: Where the figures lie.

    Attributes:
        figures_FR: int64, in the order of ``NUM_FIGURES``; stays at its address.
    """

    def __init__(self, rows: int, nobody: int, device: torch.device) -> None:
        self._dense: _Figures = (_NEVER, _NEVER, -1, nobody, 0)
        self._written = [self._dense] * rows
        self._changed: dict[int, _Figures] = {}
        self.figures_FR = torch.tensor(self._dense, device=device)[:, None].repeat(1, rows)

    def note(self, row: int, state: RequestState | None) -> None:
        """Notes the figures of a row for the next ``flush``.

        Args:
            row: The row.
            state: State of the request that holds it; None where it is given back.
        """
        figures = self._dense if state is None else self._of(state)
        if figures == self._written[row]:
            self._changed.pop(row, None)
        else:
            self._changed[row] = figures

    def flush(self) -> None:
        """Writes what changed: one copy to the device and one operation there, or nothing."""
        if not self._changed:
            return
        columns = torch.tensor([(row, *figures) for row, figures in self._changed.items()]).T
        device = self.figures_FR.device
        if device.type == "cuda":  # so that the host need not wait for the step that runs
            columns = columns.pin_memory()
        columns = columns.to(device, non_blocking=True)
        self.figures_FR.index_copy_(1, columns[0], columns[1:])
        for row, figures in self._changed.items():
            self._written[row] = figures
        self._changed.clear()

    def _of(self, state: RequestState) -> _Figures:
        prefix, tail, table, window, start = self._dense
        if state.table_row >= 0:
            prefix, tail, table = state.pinned_slots, state.pinned_slots + state.owned_slots, state.table_row
        if state.window_row >= 0:
            window, start = state.window_row, state.window_start + 1
        return prefix, tail, table, window, start
