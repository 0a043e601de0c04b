"""Tensors that outlive a step: cell tables and query windows, one row per request that needs one."""

from __future__ import annotations

import torch


class RowAllocator:
    """Hands out row numbers, smallest first, and takes them back."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._size = 0

    @property
    def size(self) -> int:
        """Rows ever handed out; tensors need this many."""
        return self._size

    @property
    def in_use(self) -> int:
        """Rows that are out now."""
        return self._size - len(self._free)

    def take(self) -> int:
        """Returns a row that nobody holds."""
        if self._free:
            self._free.sort(reverse=True)
            return self._free.pop()
        self._size += 1
        return self._size - 1

    def give_back(self, row: int) -> None:
        """Takes a row back.

        Raises:
            ValueError: Nobody holds it.
        """
        if not 0 <= row < self._size or row in self._free:
            raise ValueError(f"Row {row} is not held; held are rows below {self._size} except {sorted(self._free)}.")
        self._free.append(row)


class CellTables:
    """Which cells each (request, layer, kv head) attends to.

    A row holds, per layer and head, ``[P pinned | n owned | T tail]`` cell ids in true-position order;
    n differs from head to head, P and T do not.

    Attributes:
        cells: Cell ids. [rows, L, H, capacity] int64
        owned: Owned cells n of each head. [rows, L, H] int64
    """

    def __init__(self, num_layers: int, num_kv_heads: int, device: torch.device) -> None:
        self.cells = torch.zeros((0, num_layers, num_kv_heads, 0), dtype=torch.int64, device=device)
        self.owned = torch.zeros((0, num_layers, num_kv_heads), dtype=torch.int64, device=device)
        self._rows = RowAllocator()

    @property
    def rows_in_use(self) -> int:
        """Rows that requests hold now."""
        return self._rows.in_use

    def take(self, capacity: int) -> int:
        """Returns a row of at least ``capacity`` cells per head. Its content is undefined."""
        row = self._rows.take()
        self._reserve(self._rows.size, capacity)
        return row

    def give_back(self, row: int) -> None:
        """Takes a row back."""
        self._rows.give_back(row)

    def write(self, row: int, pinned_LHP: torch.Tensor, owned_LHN: torch.Tensor, lengths_LH: torch.Tensor) -> None:
        """Sets a row to its pinned prefix and its owned cells, without a tail."""
        num_pinned, num_owned = pinned_LHP.shape[-1], owned_LHN.shape[-1]
        self._reserve(self._rows.size, num_pinned + num_owned)
        self.cells[row, :, :, :num_pinned] = pinned_LHP
        self.cells[row, :, :, num_pinned : num_pinned + num_owned] = owned_LHN
        self.owned[row] = lengths_LH

    def append(self, rows_B: torch.Tensor, places_BLH: torch.Tensor, cells_BLH: torch.Tensor, longest: int) -> None:
        """Writes one cell per (row, layer, head).

        Args:
            rows_B: Distinct rows.
            places_BLH: Where in each head's list, below ``longest``.
            cells_BLH: Cell ids.
            longest: Cells that the longest list has afterwards.
        """
        self._reserve(self._rows.size, longest)
        layers = torch.arange(self.cells.shape[1], device=self.cells.device)[:, None]
        heads = torch.arange(self.cells.shape[2], device=self.cells.device)
        self.cells[rows_B[:, None, None], layers, heads, places_BLH] = cells_BLH

    def _reserve(self, rows: int, capacity: int) -> None:
        """Grows by doubling, so that growth is rare."""
        old_rows, num_layers, num_kv_heads, old_capacity = self.cells.shape
        if rows <= old_rows and capacity <= old_capacity:
            return
        new_rows = old_rows if rows <= old_rows else max(rows, 2 * old_rows)
        new_capacity = old_capacity if capacity <= old_capacity else max(capacity, 2 * old_capacity)
        cells = self.cells.new_zeros((new_rows, num_layers, num_kv_heads, new_capacity))
        cells[:old_rows, :, :, :old_capacity] = self.cells
        owned = self.owned.new_zeros((new_rows, num_layers, num_kv_heads))
        owned[:old_rows] = self.owned
        self.cells, self.owned = cells, owned


class QueryWindows:
    """The newest W queries of each request that nears a round, after RoPE, in a ring.

    Attributes:
        window: W.
        queries: [rows, L, W, Hq, D]
    """

    def __init__(self, num_layers: int, window: int, num_heads: int, head_dim: int, like: torch.Tensor) -> None:
        self.window = window
        self.queries = like.new_zeros((0, num_layers, window, num_heads, head_dim))
        self._rows = RowAllocator()

    @property
    def rows_in_use(self) -> int:
        """Rows that requests hold now."""
        return self._rows.in_use

    def take(self) -> int:
        """Returns a row. Its content is undefined until W queries were stored."""
        row = self._rows.take()
        if self._rows.size > self.queries.shape[0]:
            queries = self.queries.new_zeros((max(self._rows.size, 2 * self.queries.shape[0]), *self.queries.shape[1:]))
            queries[: self.queries.shape[0]] = self.queries
            self.queries = queries
        return row

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
