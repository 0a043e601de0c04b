"""What each request of a decode batch attends to and where its query is captured, without a read from the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from reasonalloc.ops.attend import Segments
from reasonserve.engine.figures import NUM_FIGURES, RowFigures
from reasonserve.engine.tables import CellTables, QueryWindows


@dataclass(frozen=True, slots=True)
class Captures:
    """Where each query of a batch is captured.

    Attributes:
        window_rows_B: Rows in the query windows; the last row for a request that captures nothing.
        ring_B: Places in these rows' rings.
    """

    window_rows_B: torch.Tensor
    ring_B: torch.Tensor


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """One decode batch; every layer reads it.

    Attributes:
        segments: What each request attends to.
        captures: Where queries are captured; None where no request nears a round.
    """

    segments: Segments
    captures: Captures | None


class DecodePlanner:
    """Plans decode steps in tensors that stay at their addresses, so that CUDA graphs can read them.

    Args:
        figures: Each row's.
        tables: Cell tables.
        windows: Query windows.
        slots_RN: SGLang's ``req_to_token``.
        num_slots: Slots of a layer.
    """

    def __init__(
        self, figures: RowFigures, tables: CellTables, windows: QueryWindows, slots_RN: torch.Tensor, num_slots: int
    ) -> None:
        self._figures, self._tables, self._windows = figures, tables, windows
        self._slots_RN, self._num_slots = slots_RN, num_slots
        self._views: dict[int, DecodePlan] = {}
        self._plan_PB = torch.empty((2 + NUM_FIGURES, 0), dtype=torch.int64, device=slots_RN.device)
        self.reserve(slots_RN.shape[0])

    def reserve(self, batch: int) -> None:
        """Makes room for so many requests in a batch. What was planned before is void where there was less."""
        if batch > self._plan_PB.shape[1]:
            self._plan_PB = self._plan_PB.new_zeros((2 + NUM_FIGURES, batch))
            self._views = {}

    def view(self, batch: int, *, capturing: bool) -> DecodePlan:
        """Returns the plan of a batch of this size; what it says is up to ``fill``.

        Args:
            batch: Requests, padding included.
            capturing: Whether queries are captured.
        """
        plan = self._views.get(batch)
        if plan is None or plan.segments.cells_TLHK is not self._tables.cells:
            plan = self._views[batch] = self._lay_out(batch)
        return plan if capturing else DecodePlan(plan.segments, None)

    def fill(self, plan: DecodePlan, pool_rows_B: torch.Tensor, lengths_B: torch.Tensor) -> None:
        """Plans a step: few operations of the batch's shape, which a CUDA graph can record.

        Args:
            plan: What ``view`` returned for this batch.
            pool_rows_B: Rows of ``req_to_token``; 0 for padding.
            lengths_B: Lengths of the requests' rows; 0 for padding, which attends to nothing.
        """
        plan_PB = self._plan_PB[:, : pool_rows_B.shape[0]]
        rows_B, ends_B, bounds_2B = plan_PB[0], plan_PB[1], plan_PB[2:4]
        rows_B.copy_(pool_rows_B)
        ends_B.copy_(lengths_B)
        torch.index_select(self._figures.figures_FR, 1, rows_B, out=plan_PB[2:])
        torch.minimum(bounds_2B, ends_B, out=bounds_2B)
        if plan.captures is not None:
            ring_B = plan.captures.ring_B
            torch.sub(ends_B, ring_B, out=ring_B)
            ring_B.remainder_(self._windows.window)

    def _lay_out(self, batch: int) -> DecodePlan:
        rows_B, ends_B, prefix_B, tail_start_B, table_rows_B, window_rows_B, ring_B = self._plan_PB[:, :batch].unbind()
        segments = Segments(
            slots_RN=self._slots_RN,
            slot_rows_B=rows_B,
            prefix_B=prefix_B,
            tail_start_B=tail_start_B,
            tail_end_B=ends_B,
            cells_TLHK=self._tables.cells,
            owned_TLH=self._tables.owned,
            table_rows_B=table_rows_B,
            num_slots=self._num_slots,
        )
        return DecodePlan(segments, Captures(window_rows_B, ring_B))
