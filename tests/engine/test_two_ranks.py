"""Two tensor-parallel ranks of a real SGLang: each holds one of the small model's two kv heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

Results = dict[str, Any]

FULL = {"method": "full", "budget_tokens": 0}
AMPLE = {"method": "reasonalloc", "budget_tokens": 512}
SMALL = {"budget_tokens": 48, "buffer_tokens": 16}
PROMPT = list(range(100, 140))
LAYERS, HEADS = 4, 2
SETUP: dict[str, Any] = {
    "engine": "reasonserve",
    "dtype": "float32",
    "pool_slots": 900,
}
TWO_RANKS: dict[str, Any] = {
    "arguments": {"tp_size": 2},
    # SGLang binds a rank to a NUMA node unless it is told which cores to take; it retracts if it expects short answers.
    "environment": {"SGLANG_CPU_OMP_THREADS_BIND": "0|1", "SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION": "64"},
}
CROWD_TOKENS = 400
"""Three such requests do not fit the pool, whenever they come; five are asked."""
WITHOUT_ROUNDS = {"full": FULL, "ample": AMPLE}


def request(number: int, name: str, tokens: int, kv: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": name, "input_ids": [60 + number, *PROMPT], "sampling": {"max_new_tokens": tokens}, "kv": kv, **more}


@pytest.fixture(scope="module")
def model(pytestconfig: pytest.Config) -> str:
    return str(pytestconfig.rootpath / "tests" / "data" / "pointer-chaser")


def without_rounds() -> list[dict[str, Any]]:
    return [request(10 + n, name, 120, kv) for n, (name, kv) in enumerate(WITHOUT_ROUNDS.items())]


@pytest.fixture(scope="module")
def ours(run_job: Callable[[dict[str, Any]], Results], model: str) -> Results:
    squeeze = [{"after": 90, "to": 32}]
    wave = [
        *without_rounds(),
        request(1, "uniform", 150, {"method": "r-kv", **SMALL}),
        request(2, "uneven", 150, {"method": "reasonalloc", **SMALL}),
        request(3, "evictable", 150, {"method": "lava", "prompt_mode": "evictable", **SMALL}, set_budget=squeeze),
        *(request(4 + n, f"crowd-{n}", CROWD_TOKENS, FULL) for n in range(5)),
    ]
    return run_job({**SETUP, **TWO_RANKS, "model": model, "waves": [wave]})


@pytest.fixture(scope="module")
def one_rank(run_job: Callable[[dict[str, Any]], Results], model: str) -> Results:
    return run_job({**SETUP, "model": model, "waves": [without_rounds()]})


@pytest.mark.parametrize("name", WITHOUT_ROUNDS)
def test_two_ranks_give_the_tokens_of_one_where_no_round_runs(ours: Results, one_rank: Results, name: str) -> None:
    assert len(ours[name]["token_ids"]) == 120
    assert ours[name]["token_ids"] == one_rank[name]["token_ids"]
    assert ours[name]["kv"]["rounds"] == one_rank[name]["kv"]["rounds"] == []


def test_the_handshake_speaks_of_the_whole_model(ours: Results) -> None:
    assert ours["handshake"]["num_kv_heads"] == HEADS
    assert ours["handshake"]["bytes_per_slot"] == 2 * LAYERS * HEADS * 32 * 4


def test_the_ranks_agree_over_rounds_squeezes_and_retractions(ours: Results) -> None:
    """They are compared every few steps and SGLang's strict checks run on each, or the job would have failed."""
    assert sum(ours[f"crowd-{n}"]["retractions"] for n in range(5)) > 0
    assert ours["evictable"]["kv"]["squeezes"] >= 1
    assert ours["used_slots"] == 0


@pytest.mark.parametrize("name", ["uniform", "uneven"])
def test_a_round_counts_the_cells_of_all_ranks(ours: Results, name: str) -> None:
    rounds = ours[name]["kv"]["rounds"]
    assert len(rounds) >= 5
    assert rounds[-1]["kept_cells"] == 48 * LAYERS * HEADS
    assert len(ours[name]["token_ids"]) == 150
