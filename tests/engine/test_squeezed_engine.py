"""Squeezes, a short pool, chunked prompts and odd requests in a real SGLang: small model, strict memory checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

Results = dict[str, Any]

QUESTION = "Explain step by step how rainbows form."
BUFFER, WINDOW = 32, 16
CONTEXT = 416
SETUP: dict[str, Any] = {
    "engine": "reasonserve",
    "dtype": "float32",
    "pool_slots": 1340,
    "context_length": CONTEXT,
    "arguments": {"chunked_prefill_size": 64},
    # SGLang admits more than fits when it expects short answers; this is what makes it retract.
    "environment": {"SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION": "64"},
}
CELLS_A_SLOT = 4 * 2
"""Layers and kv heads of the small model."""
FULL = {"method": "full", "budget_tokens": 0}


def bounded(budget: int) -> dict[str, Any]:
    return {"method": "r-kv", "budget_tokens": budget, "buffer_tokens": BUFFER}


@pytest.fixture(scope="module")
def prompt() -> list[int]:
    return list(range(100, 140))


@pytest.fixture(scope="module")
def ours(run_job: Callable[[dict[str, Any]], Results], prompt: list[int], pytestconfig: pytest.Config) -> Results:
    model = pytestconfig.rootpath / "tests" / "data" / "pointer-chaser"
    serial = iter(range(300, 600))

    def request(name: str, tokens: int, kv: dict[str, Any], **more: Any) -> dict[str, Any]:
        """A request that shares no prefix with another."""
        sampling = {"max_new_tokens": tokens, **more.pop("sampling", {})}
        return {"id": name, "input_ids": [next(serial), *prompt], "sampling": sampling, "kv": kv, **more}

    long = [*prompt, *range(200, 400)]
    odd = [
        request("squeezed", 240, bounded(128), set_budget=[{"after": 150, "to": 40}]),
        request("grown", 330, bounded(96), set_budget=[{"after": 100, "to": 48}, {"after": 160, "to": 10**6}]),
        request("to the context's end", CONTEXT - len(prompt) - 1, bounded(64)),
        {**request("long prompt", 150, bounded(64)), "input_ids": long},
        {**request("evictable", 150, {**bounded(64), "prompt_mode": "evictable"}), "input_ids": [5, *long]},
        {**request("ample", 40, bounded(10_000)), "input_ids": [6, *prompt]},
        {**request("full", 40, FULL), "input_ids": [6, *prompt]},
        request("stopped", 200, bounded(32), sampling={"ignore_eos": False, "stop": [" the"]}),
    ]
    short = [request(f"bounded-{n}", 240, bounded(160)) for n in range(2)]
    short += [request(f"unbounded-{n}", 200, FULL) for n in range(4)]
    crowded = [request("least", 200, bounded(32)), *(request(f"crowd-{n}", 200, FULL) for n in range(6))]
    return run_job({**SETUP, "model": str(model), "waves": [odd, short, crowded]})


def test_the_scheduler_plans_a_step_while_the_last_one_is_processed(ours: Results) -> None:
    """SGLang's default, and what is hardest on bookkeeping: all of the above ran with it."""
    assert ours["overlap"] is True


def private(output: Results, prompt_tokens: int) -> int:
    return prompt_tokens - int(output["cached_tokens"])


def test_a_squeeze_gives_slots_back_and_the_text_goes_on(ours: Results, prompt: list[int]) -> None:
    output = ours["squeezed"]
    base = private(output, len(prompt) + 1)
    assert max(output["held"][:150]) > base + 128
    assert max(output["held"][150 + WINDOW + 4 :]) <= base + 40 + BUFFER
    assert (output["kv"]["squeezes"], len(output["token_ids"])) == (1, 240)
    assert output["kv"]["rounds"][-1]["kept_cells"] == 40 * CELLS_A_SLOT


def test_a_budget_grows_back_to_what_was_admitted(ours: Results, prompt: list[int]) -> None:
    output = ours["grown"]
    base = private(output, len(prompt) + 1)
    assert max(output["held"][100 + WINDOW + 4 : 155]) <= base + 48 + BUFFER
    assert max(output["held"][240:]) == base + 96 + BUFFER
    assert output["kv"]["rounds"][-1]["kept_cells"] == 96 * CELLS_A_SLOT
    assert output["kv"]["squeezes"] == 1


def test_requests_are_squeezed_before_any_is_retracted(ours: Results) -> None:
    wave = [ours[f"bounded-{n}"] for n in range(2)] + [ours[f"unbounded-{n}"] for n in range(4)]
    assert [output["retractions"] for output in wave] == [0] * 6
    assert all(output["kv"]["squeezes"] >= 1 for output in wave[:2])
    assert all(output["kv"]["rounds"][-1]["kept_cells"] >= 80 * CELLS_A_SLOT for output in wave[:2])
    assert [len(output["token_ids"]) for output in wave] == [240] * 2 + [200] * 4


def test_what_no_squeeze_can_fit_is_retracted_and_finishes(ours: Results) -> None:
    crowd = [ours[f"crowd-{n}"] for n in range(6)]
    assert sum(output["retractions"] for output in crowd) > 0
    assert ours["least"]["kv"]["squeezes"] == 0, "nobody is squeezed under the least budget"
    assert all(len(output["token_ids"]) == 200 for output in [*crowd, ours["least"]])


def test_a_request_runs_to_the_end_of_the_context(ours: Results, prompt: list[int]) -> None:
    output = ours["to the context's end"]
    assert output["finish_reason"] == "length"
    assert CONTEXT - 3 <= len(prompt) + 1 + len(output["token_ids"]) <= CONTEXT, "SGLang stops one or two short"
    assert output["kv"]["peak_slots"] <= private(output, len(prompt) + 1) + 64 + BUFFER


@pytest.mark.parametrize(("name", "first"), [("long prompt", 0), ("evictable", 1)])
def test_a_prompt_longer_than_the_budget_is_prefilled_in_chunks(
    ours: Results, prompt: list[int], name: str, first: int
) -> None:
    output, length = ours[name], len(prompt) + 200 + first
    assert len(output["token_ids"]) == 150
    assert len(output["kv"]["rounds"]) >= 1
    kept = 64 + BUFFER + (0 if first else private(output, length))
    assert output["held"][-1] <= kept


def test_a_budget_longer_than_the_context_changes_nothing(ours: Results) -> None:
    assert ours["ample"]["token_ids"] == ours["full"]["token_ids"]
    assert ours["ample"]["kv"]["rounds"] == []


def test_a_stop_string_ends_a_bounded_request(ours: Results) -> None:
    assert ours["stopped"]["finish_reason"] == "stop"
