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
    rows = RowAllocator(8)
    held: list[int] = []
    for take in takes:
        if take and len(held) < 8:
            row = rows.take()
            assert row not in held
            assert 0 <= row < 8
            held.append(row)
        elif held:
            rows.give_back(held.pop(0))
        assert rows.in_use == len(held)


def test_a_row_that_nobody_holds_cannot_be_given_back() -> None:
    rows = RowAllocator(1)
    rows.give_back(rows.take())
    with pytest.raises(ValueError, match="Row 0 of 1 is not held"):
        rows.give_back(0)


def test_more_requests_than_rows_are_an_error() -> None:
    rows = RowAllocator(1)
    rows.take()
    with pytest.raises(RuntimeError, match="All 1 rows are held"):
        rows.take()


def test_tables_stay_where_they_are_until_a_list_outgrows_them() -> None:
    tables = CellTables(rows=3, num_layers=2, num_kv_heads=3, capacity=4, device=CPU, fixed=False)
    address = tables.cells.data_ptr()
    first, second = tables.take(), tables.take()
    owned = torch.arange(100, 118).view(2, 3, 3)
    lengths = torch.tensor([[3, 2, 1], [1, 2, 3]])
    tables.write(first, owned, lengths)
    assert tables.cells.data_ptr() == address
    tables.write(second, torch.arange(36).view(2, 3, 6), torch.full((2, 3), 6))
    assert torch.equal(tables.cells[first, :, :, :3], owned)
    assert torch.equal(tables.cells[second, :, :, :6], torch.arange(36).view(2, 3, 6))
    assert torch.equal(tables.owned[first], lengths)


def test_fixed_tables_take_wide_candidates_with_short_lists_and_never_move() -> None:
    tables = CellTables(rows=1, num_layers=1, num_kv_heads=2, capacity=4, device=CPU, fixed=True)
    address, row = tables.cells.data_ptr(), tables.take()
    tables.write(row, torch.arange(14).view(1, 2, 7), torch.tensor([[4, 1]]))
    assert tables.cells[row, 0, 0].tolist() == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match="keeps 5 cells in one list and the tables have room for 4"):
        tables.write(row, torch.arange(14).view(1, 2, 7), torch.tensor([[5, 1]]))
    assert tables.cells.data_ptr() == address


@pytest.mark.parametrize("captured", [4, 5, 7, 8, 13])
def test_windows_come_back_oldest_first(captured: int) -> None:
    windows = QueryWindows(rows=2, num_layers=2, window=4, num_heads=1, head_dim=1, like=torch.zeros(0))
    other, row = windows.take(), windows.take()
    for n in range(captured):
        for layer in range(2):
            queries = torch.tensor([[[float(10 * layer + n)]], [[-1.0]]])
            windows.store(layer, torch.tensor([row, other]), torch.tensor([n % 4, n % 4]), queries)
    newest = [float(n) for n in range(captured - 4, captured)]
    assert windows.oldest_first(row, captured)[0].flatten().tolist() == newest
    assert windows.oldest_first(row, captured)[1].flatten().tolist() == [10 + n for n in newest]


def test_what_nobody_captures_disturbs_no_window() -> None:
    windows = QueryWindows(rows=1, num_layers=1, window=2, num_heads=1, head_dim=1, like=torch.zeros(0))
    row = windows.take()
    for n in range(2):
        windows.store(
            0, torch.tensor([windows.nobody, row, windows.nobody]), torch.tensor([0, n, 0]), -torch.ones(3, 1, 1)
        )
    assert windows.oldest_first(row, 2).flatten().tolist() == [-1.0, -1.0]
