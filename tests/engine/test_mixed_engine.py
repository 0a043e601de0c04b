"""Running requests that join the chunks of prompts, in a real engine on the small model, with the strict checks on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

Results = dict[str, Any]

CHUNK, LONG = 16, 200
"""Tokens of a chunk, and of the prompts that take many."""
TOKENS = 150
SMALL = {"budget_tokens": 48, "buffer_tokens": 16}
SEEDED = {"temperature": 0.8, "seed": 11}
FULL = {"method": "full", "budget_tokens": 0}
SETUP: dict[str, Any] = {
    "dtype": "float32",
    "pool_slots": 4000,
    "prefill_chunk_tokens": CHUNK,
}
SHORT: dict[str, dict[str, Any]] = {
    "dense": {"kv": FULL},
    "uniform": {"kv": {"method": "r-kv", **SMALL}},
    "routed": {"kv": {"method": "reasonalloc", **SMALL}},
    "evictable": {"kv": {"method": "lava", "prompt_mode": "evictable", **SMALL}},
    "seeded": {"kv": {"method": "r-kv", **SMALL}, "sampling": {"max_new_tokens": TOKENS, **SEEDED}},
    "squeezed": {"kv": {"method": "reasonalloc", **SMALL}, "set_budget": [{"after": 30, "to": 32}]},
    "aborted": {"kv": {"method": "reasonalloc", **SMALL}, "abort_after": 60},
}
"""Requests that run while the others' prompts are read."""
SAME = [name for name in SHORT if name not in ("squeezed", "aborted")]
"""Those whose tokens do not depend on when something reaches them from outside."""


def short(number: int, name: str, what: dict[str, Any]) -> dict[str, Any]:
    sampling = {"max_new_tokens": TOKENS}
    return {"id": name, "input_ids": [60 + number, *range(100, 107)], "sampling": sampling, **what}


def long(number: int) -> dict[str, Any]:
    kv = FULL if number % 2 else {"method": "reasonalloc", **SMALL}
    prompt = [(60 + 7 * number + 3 * i) % 250 for i in range(LONG)]
    return {"id": f"long-{number}", "input_ids": prompt, "sampling": {"max_new_tokens": 40}, "kv": kv}


@pytest.fixture(scope="module")
def jobs(pytestconfig: pytest.Config) -> dict[str, Any]:
    wave = [*(short(n, name, what) for n, (name, what) in enumerate(SHORT.items())), *map(long, range(6))]
    model = str(pytestconfig.rootpath / "tests" / "data" / "pointer-chaser")
    return {**SETUP, "model": model, "waves": [wave]}


@pytest.fixture(scope="module")
def mixed(run_job: Callable[[dict[str, Any]], Results], jobs: dict[str, Any]) -> Results:
    return run_job({**jobs, "engine": "reasonserve", "mixed_chunks": True})


@pytest.fixture(scope="module")
def apart(run_job: Callable[[dict[str, Any]], Results], jobs: dict[str, Any]) -> Results:
    return run_job({**jobs, "engine": "reasonserve"})


def rounds_before_the_last_prompt(results: Results) -> int:
    last = max(results[f"long-{n}"]["kv"]["scheduled_unix_s"] for n in range(6))
    return sum(event["unix_time_s"] < last for name in SAME for event in results[name]["kv"]["rounds"])


def test_rounds_run_while_prompts_are_read(mixed: Results, apart: Results) -> None:
    assert rounds_before_the_last_prompt(mixed) > len(SAME)
    assert rounds_before_the_last_prompt(apart) == 0


@pytest.mark.parametrize("name", [*SAME, *(f"long-{n}" for n in range(6))])
def test_tokens_are_those_of_requests_that_waited(mixed: Results, apart: Results, name: str) -> None:
    assert mixed[name]["token_ids"] == apart[name]["token_ids"]
    assert mixed[name]["finish_reason"] == apart[name]["finish_reason"]


@pytest.mark.parametrize("name", SAME)
def test_the_same_rounds_run(mixed: Results, apart: Results, name: str) -> None:
    def rounds(results: Results) -> list[tuple[int, int]]:
        return [(event["output_tokens"], event["kept_cells"]) for event in results[name]["kv"]["rounds"]]

    assert rounds(mixed) == rounds(apart)
    assert rounds(mixed) or name == "dense"


def test_a_squeeze_reaches_a_request_that_joined(mixed: Results) -> None:
    assert mixed["squeezed"]["kv"]["squeezes"] == 1
    assert mixed["squeezed"]["kv"]["held_slots"] <= 32 + SMALL["buffer_tokens"] + 8


def test_nothing_is_left(mixed: Results) -> None:
    assert len(mixed["aborted"]["token_ids"]) >= 60
    assert mixed["used_slots"] == 0
