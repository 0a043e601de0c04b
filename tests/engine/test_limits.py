"""Tables that must not move refuse who could outgrow them, and nobody else; the bound holds for what rounds keep."""

from __future__ import annotations

import pytest

from reasonserve.engine.limits import check_lists_fit, longest_list
from reasonserve.kv import KvRequest

LAYERS, HEADS = 4, 2


def longest(method: str, budget: int, new: int, *, prompt: int = 700, mode: str = "pinned") -> int:
    kv = KvRequest(method=method, budget_tokens=budget, prompt_mode=mode)  # type: ignore[arg-type]
    return longest_list(kv, prompt, new, LAYERS, HEADS)


@pytest.mark.parametrize(
    ("method", "expected"),
    [("r-kv", 64), ("head-only", 128), ("layer-only", 256), ("reasonalloc", 512), ("lava", 512), ("full", 0)],
)
def test_a_list_is_bounded_by_what_its_rules_can_give_it(method: str, expected: int) -> None:
    assert longest(method, 64, 10_000) == expected


def test_no_list_is_longer_than_the_tokens_that_compete() -> None:
    assert longest("reasonalloc", 256, 300) == 300
    assert longest("reasonalloc", 256, 300, mode="evictable") == 1000
    assert longest("r-kv", 512, 300, mode="evictable") == 512


def test_a_request_that_could_outgrow_the_tables_is_refused() -> None:
    kv = KvRequest(method="reasonalloc", budget_tokens=512)
    check_lists_fit(kv, 1024, 1024)
    with pytest.raises(
        ValueError, match=r"could keep 1025 tokens .* room for 1024.*max_tokens.*raise engine\.table_cells"
    ):
        check_lists_fit(kv, 1025, 1024)
