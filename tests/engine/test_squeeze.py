"""Who gives up KV memory and who takes it back: the pure decisions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonserve.engine.squeeze import Holder, Squeezed, regrown_budgets, squeezed_budgets


@st.composite
def holders(draw: st.DrawFn) -> Holder:
    budget = draw(st.integers(32, 300))
    return Holder(held=draw(st.integers(0, 450)), budget=budget, floor=draw(st.integers(32, budget)))


def freed(before: list[Holder], budgets: list[int | None]) -> int:
    return sum(h.held - b for h, b in zip(before, budgets, strict=True) if b is not None)


@given(st.lists(holders(), max_size=8), st.integers(0, 600))
def test_what_is_needed_is_freed_where_floors_allow_it(requests: list[Holder], need: int) -> None:
    budgets = squeezed_budgets(requests, need)
    possible = sum(max(0, h.held - h.floor) for h in requests)
    assert freed(requests, budgets) >= min(need, possible)
    for holder, budget in zip(requests, budgets, strict=True):
        assert budget is None or holder.floor <= budget <= holder.budget
        assert budget is None or budget < holder.held
    assert need > 0 or budgets == [None] * len(requests)


@given(st.lists(holders(), min_size=1, max_size=8), st.integers(1, 600))
def test_the_largest_gives_first(requests: list[Holder], need: int) -> None:
    """Nobody is left with more than a request that gave, unless a floor or its own budget holds it there."""
    budgets = squeezed_budgets(requests, need)
    left = [h.held if b is None else b for h, b in zip(requests, budgets, strict=True)]
    lowered = [b for h, b in zip(requests, budgets, strict=True) if b is not None and b < h.budget]
    for holder, rest in zip(requests, left, strict=True):
        assert all(rest <= max(level, holder.floor) for level in lowered)


@pytest.mark.parametrize(
    ("need", "expected"),
    [
        (20, [None, None, 128]),  # a tail of 40 is enough: a round without a lower budget
        (60, [None, None, 108]),
        (100, [None, 84, 84]),
        (10_000, [32, 64, 64]),  # the floors
    ],
)
def test_worked_examples(need: int, expected: list[int | None]) -> None:
    requests = [Holder(held=40, budget=40, floor=32), Holder(100, 128, 64), Holder(168, 128, 64)]
    assert squeezed_budgets(requests, need) == expected


def test_room_goes_to_the_most_squeezed_first_and_whole() -> None:
    requests = [Squeezed(budget=100, asked=128), Squeezed(32, 128), Squeezed(64, 128)]
    assert regrown_budgets(requests, 0) == [100, 32, 64]
    assert regrown_budgets(requests, 96) == [100, 128, 64]
    assert regrown_budgets(requests, 130) == [128, 128, 64]
    assert regrown_budgets(requests, 1000) == [128, 128, 128]


@given(st.lists(st.tuples(st.integers(32, 200), st.integers(0, 200)), max_size=8), st.integers(0, 500))
def test_growth_never_exceeds_the_room(pairs: list[tuple[int, int]], room: int) -> None:
    requests = [Squeezed(budget=b, asked=b + more) for b, more in pairs]
    budgets = regrown_budgets(requests, room)
    assert sum(b - s.budget for b, s in zip(budgets, requests, strict=True)) <= room
    assert all(b in (s.budget, s.asked) for b, s in zip(budgets, requests, strict=True))
