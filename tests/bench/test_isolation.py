"""How the figures of isolation and routing are made of what was seen; no engine runs here."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from reasonserve.bench import isolation, routing

SETUP = routing.Setup(pool_slots=100, prefixes=3, prefix_tokens=20, own_tokens=4, new_tokens=2, requests=50, clients=2)


def request(wait_s: float, steps: int, *, refused: bool = False, served: bool = True) -> dict[str, Any]:
    figures = {"refused": refused, "served": served, "wait_s": wait_s, "wait_steps": steps, "ttft_s": wait_s + 0.1}
    return figures | {"seconds": 2.0 if served else None, "tokens": 11}


def phase(*requests: dict[str, Any]) -> dict[str, Any]:
    return {
        "requests": list(requests),
        "step_times": [0.0, 0.1, 0.2, 0.5],
        "seconds": 10.0,
        "noisy_tokens": 50,
        "noisy_refused": 3,
    }


def test_a_row_counts_refused_requests_apart_and_unserved_ones_in() -> None:
    seen = phase(request(1.0, 1), request(3.0, 5), request(9.0, 40, served=False), request(0.0, 0, refused=True))
    row = isolation.to_row("stock", "noise", seen)
    assert (row.refused, row.unserved) == (1, 1)
    assert (row.wait_p50_s, row.wait_p95_s, row.wait_p95_steps) == (3.0, 9.0, 40.0)
    assert row.tokens_per_s == pytest.approx(5.0)
    assert row.step_ms == pytest.approx(100.0)
    assert row.noisy_tokens_per_s == 5.0


def test_isolation_is_at_fault_for_refusals_and_for_more_than_two_steps() -> None:
    alone = isolation.to_row("reasonserve", "alone", phase(request(0.1, 1)))
    good = isolation.to_row("reasonserve", "noise", phase(request(0.5, 3)))
    stock = isolation.to_row("stock", "noise", phase(request(50.0, 900, served=False)))
    assert isolation.faults([alone, good, stock]) == []
    assert "3.0 engine steps longer" in isolation.faults([alone, replace(good, wait_p95_steps=4.0), stock])[0]
    assert "1 requests of the guaranteed tenant were refused" in isolation.faults([alone, replace(good, refused=1)])[0]
    assert isolation.table([alone, good, stock]).row_count == 3


@pytest.mark.parametrize(
    ("values", "percent", "value"), [([3.0, 1.0, 2.0], 50, 2.0), ([1.0] * 19 + [9.0], 95, 1.0), ([], 95, 0.0)]
)
def test_a_percentile_is_a_value_that_was_seen(values: list[float], percent: int, value: float) -> None:
    assert isolation.percentile(values, percent) == value


def test_both_engines_get_the_same_load() -> None:
    ours, stock = (isolation._job(engine, isolation.QUICK, "model") for engine in ("reasonserve", "stock"))
    assert {k: v for k, v in ours.items() if k != "engine"} == {k: v for k, v in stock.items() if k != "engine"}


def test_prompts_share_their_prefixes_and_nothing_else() -> None:
    prompts = routing.make_prompts(SETUP, 1000)
    assert len(prompts) == SETUP.prefixes + SETUP.requests
    assert {len(prompt) for prompt in prompts} == {24}
    prefixes = {tuple(prompt[:20]) for prompt in prompts}
    assert len(prefixes) == SETUP.prefixes
    assert {tuple(prompt[:20]) for prompt in prompts[: SETUP.prefixes]} == prefixes
    assert len({tuple(prompt) for prompt in prompts}) == len(prompts)


def test_imbalance_is_over_all_replicas() -> None:
    assert routing.imbalance(Counter(a=60, b=40), 2) == pytest.approx(0.2)
    assert routing.imbalance(Counter(a=100), 2) == pytest.approx(1.0)


def test_routing_is_at_fault_below_its_promises() -> None:
    chance = routing.Row(
        policy="power-of-two", cached_share=0.25, imbalance=0.0, seconds=1.0, latency_p50_s=0.1, failed=0
    )
    good = replace(chance, policy="prefix-affinity", cached_share=0.375, imbalance=0.19)
    assert routing.faults([chance, good]) == []
    assert len(routing.faults([chance, replace(good, cached_share=0.37, imbalance=0.2, failed=1)])) == 3
