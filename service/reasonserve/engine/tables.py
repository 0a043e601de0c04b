"""Tensors that outlive a step: cell tables and query windows, one row per request that needs one."""

from __future__ import annotations

import heapq

import torch


class RowAllocator:
    """Hands out row numbers, smallest first, and takes them back.

    Args:
        rows: How many there are.
    """

    def __init__(self, rows: int) -> None:
        self._num_rows = rows
        self._free = list(range(rows))

    @property
    def in_use(self) -> int:
        """Rows that are out now."""
        return self._num_rows - len(self._free)

    def take(self) -> int:
        """Returns a row that nobody holds.

        Raises:
            RuntimeError: All are held; more requests run than SGLang said there would.
        """
        if not self._free:
            raise RuntimeError(f"All {self._num_rows} rows are held, one for each request that can run at once.")
        return heapq.heappop(self._free)

    def give_back(self, row: int) -> None:
        """Takes a row back.

        Raises:
            ValueError: Nobody holds it.
        """
        if not 0 <= row < self._num_rows or row in self._free:
            raise ValueError(f"Row {row} of {self._num_rows} is not held, so it cannot be given back.")
        heapq.heappush(self._free, row)


class CellTables:
    """Which owned cells each (request, layer, kv head) attends to, between its pinned prefix and its tail.

    Prefix and tail are whole slots, the same for every layer and head: they need no entry here. Both tensors are
    laid out at the start for as many requests as can run. Tables that are not fixed move when a list is longer than
    any before; fixed ones never do, as a CUDA graph needs, and requests that might outgrow them must be refused.

    Args:
        rows: Requests that can run at once.
        num_layers: Layers L.
        num_kv_heads: KV heads H.
        capacity: Cells per list to begin with.
        device: Where the tables lie.
        fixed: Whether they keep their size.

    Attributes:
        fixed: Likewise.
        cells: Owned cells of each list in true-position order; what lies behind them is undefined.
            [rows, L, H, capacity] int64
        owned: Owned cells of each list. [rows, L, H] int64
    """

    def __init__(
        self, rows: int, num_layers: int, num_kv_heads: int, capacity: int, device: torch.device, *, fixed: bool
    ) -> None:
        self.fixed = fixed
        # Not zeros: on a CPU, memory that no request touches is never taken from the machine.
        self.cells = torch.empty((rows, num_layers, num_kv_heads, capacity), dtype=torch.int64, device=device)
        self.owned = torch.zeros((rows, num_layers, num_kv_heads), dtype=torch.int64, device=device)
        self._rows = RowAllocator(rows)

    @property
    def capacity(self) -> int:
        """Cells that a list has room for now."""
        return self.cells.shape[-1]

    @property
    def rows_in_use(self) -> int:
        """Rows that requests hold now."""
        return self._rows.in_use

    def take(self) -> int:
        """Returns a row. Its content is undefined."""
        return self._rows.take()

    def give_back(self, row: int) -> None:
        """Takes a row back."""
        self._rows.give_back(row)

    def write(self, row: int, cells_LHN: torch.Tensor, lengths_LH: torch.Tensor) -> None:
        """Sets a row to its owned cells.

        Args:
            row: The row.
            cells_LHN: Cells, padded.
            lengths_LH: Cells of each list.

        Raises:
            RuntimeError: A list is longer than fixed tables allow.
        """
        longest = cells_LHN.shape[-1]
        if longest > self.capacity:
            longest = int(lengths_LH.max())
        if longest > self.capacity:
            self._widen(longest)
        self.cells[row, :, :, :longest] = cells_LHN[..., :longest]
        self.owned[row] = lengths_LH

    def _widen(self, longest: int) -> None:
        if self.fixed:
            raise RuntimeError(
                f"A request keeps {longest} cells in one list and the tables have room for {self.capacity}; it should "
                "have been refused."
            )
        wider = self.cells.new_empty((*self.cells.shape[:-1], max(longest, 2 * self.capacity)))
        wider[..., : self.capacity] = self.cells
        self.cells = wider


class QueryWindows:
    """The newest W queries of each request that nears a round, after RoPE, in a ring.

    The last row belongs to nobody: what need not be captured may be written there, so that a step can store the
    queries of its whole batch in one operation of one shape.

    Args:
        rows: Requests that can run at once.
        num_layers: Layers L.
        window: W.
        num_heads: Query heads Hq.
        head_dim: D.
        like: A tensor of the dtype and device that the queries have.

    Attributes:
        window: W.
        queries: [rows + 1, L, W, Hq, D]
        nobody: The last row.
    """

    def __init__(
        self, rows: int, num_layers: int, window: int, num_heads: int, head_dim: int, like: torch.Tensor
    ) -> None:
        self.window = window
        self.nobody = rows
        self.queries = like.new_empty((rows + 1, num_layers, window, num_heads, head_dim))
        self._rows = RowAllocator(rows)

    @property
    def rows_in_use(self) -> int:
        """Rows that requests hold now."""
        return self._rows.in_use

    def take(self) -> int:
        """Returns a row. Its content is undefined until W queries were stored."""
        return self._rows.take()

    def give_back(self, row: int) -> None:
        """Takes a row back."""
        self._rows.give_back(row)

    def store(self, layer: int, rows_B: torch.Tensor, ring_B: torch.Tensor, queries_BQD: torch.Tensor) -> None:
        """Stores one query per row at its place in the ring."""
        self.queries[rows_B, layer, ring_B] = queries_BQD

    def oldest_first(self, row: int, captured: int) -> torch.Tensor:
        """Returns a row's W queries, oldest first. [L, W, Hq, D]

        Args:
            row: The row.
            captured: Queries stored since the last reset; at least W.
        """
        return torch.roll(self.queries[row], shifts=-(captured % self.window), dims=1)
