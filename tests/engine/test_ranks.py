"""Tensor-parallel ranks that hold rows of different lengths end the engine; the other rank is played here."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reasonserve.engine.ranks import CHECK_STEPS, RankAgreement

ROWS = [("a", 120, 64), ("b", 80, 48)]


@pytest.fixture
def reduced(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What this rank brings to each reduction; the other one brings what came first."""
    brought: list[torch.Tensor] = []

    def all_reduce(tensor: torch.Tensor, op: Any, group: Any) -> None:
        assert (op, group) == (torch.distributed.ReduceOp.MIN, "the ranks")
        brought.append(tensor.clone())
        torch.minimum(tensor, brought[0], out=tensor)

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    return brought


def agreement(num_ranks: int = 2) -> RankAgreement:
    group: Any = "the ranks"
    return RankAgreement(group, num_ranks)


def test_equal_rows_go_on(reduced: list[torch.Tensor]) -> None:
    ranks = agreement()
    for _ in range(3 * CHECK_STEPS):
        ranks.check(ROWS)
    assert len(reduced) == 3


@pytest.mark.parametrize(
    "other",
    [[("a", 121, 64), ROWS[1]], [("a", 120, 63), ROWS[1]], [ROWS[1], ROWS[0]], ROWS[:1]],
    ids=["length", "budget", "order", "missing"],
)
def test_any_difference_ends_the_engine(reduced: list[torch.Tensor], other: list[tuple[str, int, int]]) -> None:
    ranks = agreement()
    for _ in range(2 * CHECK_STEPS - 1):
        ranks.check(ROWS)
    with pytest.raises(RuntimeError, match=r"rows of different lengths.*tp_size 1"):
        ranks.check(other)


def test_one_rank_has_nobody_to_ask(reduced: list[torch.Tensor]) -> None:
    alone = agreement(num_ranks=1)
    for _ in range(2 * CHECK_STEPS):
        alone.check(ROWS)
    assert reduced == []
