"""Cell tables and query windows: rows go out and come back, growth keeps content, rings turn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reasonserve.engine.tables import CellTables, QueryWindows, RowAllocator

CPU = torch.device("cpu")


@given(st.lists(st.booleans(), max_size=60))
def test_rows_are_never_held_twice(takes: list[bool]) -> None:
    rows = RowAllocator()
    held: list[int] = []
    for take in takes:
        if take or not held:
            row = rows.take()
            assert row not in held
            held.append(row)
        else:
            rows.give_back(held.pop(0))
        assert rows.in_use == len(held)
        assert rows.size >= len(held)


def test_a_row_that_nobody_holds_cannot_be_given_back() -> None:
    rows = RowAllocator()
    rows.give_back(rows.take())
    with pytest.raises(ValueError, match="Row 0 is not held"):
        rows.give_back(0)


def test_growth_keeps_what_was_written() -> None:
    tables = CellTables(num_layers=2, num_kv_heads=3, device=CPU)
    first = tables.take(5)
    pinned = torch.arange(12).view(2, 3, 2)
    owned = torch.arange(100, 118).view(2, 3, 3)
    lengths = torch.tensor([[3, 2, 1], [1, 2, 3]])
    tables.write(first, pinned, owned, lengths)
    for _ in range(5):
        tables.take(40)
    assert torch.equal(tables.cells[first, :, :, :2], pinned)
    assert torch.equal(tables.cells[first, :, :, 2:5], owned)
    assert torch.equal(tables.owned[first], lengths)


def test_append_writes_each_head_at_its_own_place() -> None:
    tables = CellTables(num_layers=1, num_kv_heads=2, device=CPU)
    row = tables.take(4)
    tables.write(
        row, torch.zeros((1, 2, 1), dtype=torch.int64), torch.tensor([[[7, 8], [9, 0]]]), torch.tensor([[2, 1]])
    )
    tables.append(torch.tensor([row]), torch.tensor([[[3, 2]]]), torch.tensor([[[50, 60]]]), longest=4)
    assert tables.cells[row, 0, 0, :4].tolist() == [0, 7, 8, 50]
    assert tables.cells[row, 0, 1, :3].tolist() == [0, 9, 60]


@pytest.mark.parametrize("captured", [4, 5, 7, 8, 13])
def test_windows_come_back_oldest_first(captured: int) -> None:
    windows = QueryWindows(num_layers=2, window=4, num_heads=1, head_dim=1, like=torch.zeros(0))
    other, row = windows.take(), windows.take()
    for n in range(captured):
        for layer in range(2):
            queries = torch.tensor([[[float(10 * layer + n)]], [[-1.0]]])
            windows.store(layer, torch.tensor([row, other]), torch.tensor([n % 4, n % 4]), queries)
    newest = [float(n) for n in range(captured - 4, captured)]
    assert windows.oldest_first(row, captured)[0].flatten().tolist() == newest
    assert windows.oldest_first(row, captured)[1].flatten().tolist() == [10 + n for n in newest]
