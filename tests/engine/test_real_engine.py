"""The plugin in a real SGLang on real weights, beside stock SGLang, with SGLang's strict memory checks on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reasonalloc.methods import NAMED_METHODS
from reasonserve.kv import REQUIRED_SEAMS

pytestmark = pytest.mark.engine

Results = dict[str, Any]

PROMPTS = (
    "Explain step by step how rainbows form.",
    "What is 17 times 23? Think slowly, step by step.",
    "Write about the history of bread.",
    "Why is the sky blue? Explain in detail.",
    "A train leaves at 9:00 and travels 180 km at 60 km/h. When does it arrive?",
    "List the planets of the solar system and describe each.",
)
TOKENS = 128
SETUP: dict[str, Any] = {"dtype": "float32", "pool_slots": 4096}
BUDGET, BUFFER = 64, 32
CROWD = 24
"""Requests whose dense caches would fill the pool almost twice, and whose bounded ones fit."""
CROWD_METHODS = (*NAMED_METHODS, "entropy/one-pass/knorm", "pyramid/adakv/rkv-released", "wave/reasonalloc/h2o")
"""Methods of the crowd, in turns."""


@pytest.fixture(scope="module")
def prompts(model_path: str) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path)
    chats = [[{"role": "user", "content": p}] for p in PROMPTS]
    return [tokenizer.apply_chat_template(c, add_generation_prompt=True, return_dict=False) for c in chats]


def request(name: str, input_ids: list[int], tokens: int = TOKENS, **more: Any) -> dict[str, Any]:
    return {"id": name, "input_ids": input_ids, "sampling": {"max_new_tokens": tokens}, **more}


@pytest.fixture(scope="module")
def stock(run_job: Callable[[dict[str, Any]], Results], prompts: list[list[int]]) -> Results:
    wave = [request(f"dense-{i}", p) for i, p in enumerate(prompts)]
    again = [request("again", prompts[0])]
    return run_job({"engine": "stock", **SETUP, "waves": [wave, again]})


@pytest.fixture(scope="module")
def ours(run_job: Callable[[dict[str, Any]], Results], prompts: list[list[int]]) -> Results:
    dense = {"method": "reasonalloc", "budget_tokens": 1024}
    small = {"budget_tokens": BUDGET, "buffer_tokens": BUFFER}
    bounded = {"method": "reasonalloc", **small}
    seeded = {"max_new_tokens": 24, "temperature": 0.8, "top_p": 0.9, "seed": 11}
    waves = [
        [request(f"dense-{i}", p, kv=dense) for i, p in enumerate(prompts)],
        [request("again", prompts[0], kv={"method": "full", "budget_tokens": 0})],
        [request("alone", prompts[0], 320, kv=bounded)],
        [
            request("among", prompts[0], 320, kv=bounded),
            request("uniform", prompts[1], 320, kv={"method": "r-kv", **small}),
            request("evictable", prompts[5], 320, kv={**bounded, "prompt_mode": "evictable"}),
            request("full", prompts[2], 200, kv={"method": "full", "budget_tokens": 0}),
            request("aborted", prompts[3], 320, kv=bounded, abort_after=150),
            request("invalid", prompts[4], kv={"method": "r-kv", "budget_tokens": 8}),
        ],
        [
            {**request("seed-1", prompts[0], kv=bounded), "sampling": seeded},
            {**request("other", prompts[1], kv=bounded), "sampling": {**seeded, "seed": 12}},
        ],
        [{**request("seed-2", prompts[0], kv=bounded), "sampling": seeded}],
        [request("evicted prompt again", prompts[5], 8, kv=dense)],
        [request("salted", prompts[0], 8, kv=dense, cache_salt="another tenant")],
    ]
    methods = [CROWD_METHODS[i % len(CROWD_METHODS)] for i in range(CROWD)]
    crowd = [
        request(f"crowd-{i}", [7 + i, *prompts[i % 6]], 260, kv={**bounded, "method": method})
        for i, method in enumerate(methods)
    ]
    return run_job({"engine": "reasonserve", **SETUP, "waves": [*waves, crowd]})


def test_the_scheduler_says_that_everything_is_in_place(ours: Results) -> None:
    handshake = ours["handshake"]
    assert sorted(handshake["seams"]) == sorted(REQUIRED_SEAMS)
    assert (handshake["num_layers"], handshake["num_kv_heads"], handshake["head_dim"]) == (30, 3, 64)
    assert handshake["pool_slots"] == SETUP["pool_slots"]
    assert handshake["bytes_per_slot"] == 2 * 30 * 3 * 64 * 4
    assert handshake["profile_id"]
    assert "reasonalloc" in handshake["methods"]


@pytest.mark.parametrize("index", range(len(PROMPTS)))
def test_a_budget_above_the_length_changes_no_token(stock: Results, ours: Results, index: int) -> None:
    assert ours[f"dense-{index}"]["token_ids"] == stock[f"dense-{index}"]["token_ids"]
    assert ours[f"dense-{index}"]["kv"]["rounds"] == []


def test_the_prefix_cache_hits_as_in_stock(stock: Results, ours: Results, prompts: list[list[int]]) -> None:
    assert stock["again"]["cached_tokens"] == ours["again"]["cached_tokens"] == len(prompts[0]) - 1
    assert ours["again"]["token_ids"] == stock["again"]["token_ids"]


def test_tenants_do_not_share_the_prefix_cache(ours: Results) -> None:
    assert ours["salted"]["cached_tokens"] == 0


@pytest.mark.parametrize("name", ["alone", "among", "uniform"])
def test_private_slots_stay_within_budget_and_buffer(ours: Results, prompts: list[list[int]], name: str) -> None:
    output = ours[name]
    prompt = prompts[1] if name == "uniform" else prompts[0]
    uncached = len(prompt) - output["cached_tokens"]
    assert output["kv"]["peak_slots"] <= BUDGET + BUFFER + uncached
    assert max(output["held"]) == output["kv"]["peak_slots"]
    assert len(output["kv"]["rounds"]) == (320 - 1 - BUDGET - 1) // BUFFER
    assert output["finish_reason"] == "length"
    assert len(output["token_ids"]) == 320


def test_an_evictable_prompt_competes_once_it_fills_the_budget(ours: Results, prompts: list[list[int]]) -> None:
    """Prompt and output together never exceed S + T once the first round ran, which is as soon as they reach it."""
    output, prompt = ours["evictable"], len(prompts[5])
    rounds = output["kv"]["rounds"]
    assert rounds[0]["output_tokens"] == BUDGET + BUFFER - prompt < BUDGET
    assert {r["evicted_cells"] for r in rounds} == {BUFFER * 30 * 3}
    assert {r["kept_cells"] for r in rounds} == {BUDGET * 30 * 3}
    held_after = output["held"][rounds[0]["output_tokens"] + 1 :]
    assert max(held_after) <= BUDGET + BUFFER
    assert len(output["token_ids"]) == 320


def test_the_tree_keeps_its_copy_of_an_evicted_prompt(stock: Results, ours: Results, prompts: list[list[int]]) -> None:
    again = ours["evicted prompt again"]
    assert again["cached_tokens"] == len(prompts[5]) - 1
    assert again["token_ids"] == stock["dense-5"]["token_ids"][:8]


def test_every_round_accounts_for_every_cell(ours: Results) -> None:
    for event in ours["alone"]["kv"]["rounds"]:
        assert event["kept_cells"] == BUDGET * 30 * 3
        assert event["evicted_cells"] == BUFFER * 30 * 3
        assert sum(event["layer_budgets"]) == pytest.approx(BUDGET * 30)
        assert event["head_min"] >= 16


def test_budgets_are_unequal_only_where_asked(ours: Results) -> None:
    assert all(r["head_min"] == r["head_max"] == BUDGET for r in ours["uniform"]["kv"]["rounds"])
    assert all(r["head_min"] < BUDGET < r["head_max"] for r in ours["alone"]["kv"]["rounds"])


def test_freed_room_is_filled(ours: Results, prompts: list[list[int]]) -> None:
    """SGLang alone would keep room for whole answers and run about half of them at a time."""
    dense = sum(1 + len(prompts[i % 6]) + 260 for i in range(CROWD))
    assert dense > 1.7 * SETUP["pool_slots"]
    assert ours["waves"][-1]["most_running"] == CROWD
    assert all(len(ours[f"crowd-{i}"]["token_ids"]) == 260 for i in range(CROWD))


@pytest.mark.parametrize("index", range(len(CROWD_METHODS)), ids=CROWD_METHODS)
def test_every_method_keeps_as_many_cells(ours: Results, prompts: list[list[int]], index: int) -> None:
    rounds = ours[f"crowd-{index}"]["kv"]["rounds"]
    assert len(rounds) >= 5
    for event in rounds:
        assert event["kept_cells"] == BUDGET * 30 * 3
        assert sum(event["layer_budgets"]) == pytest.approx(BUDGET * 30)
    assert ours[f"crowd-{index}"]["kv"]["peak_slots"] <= 1 + len(prompts[index % 6]) + BUDGET + BUFFER


def test_methods_differ_in_where_they_keep_cells(ours: Results) -> None:
    last = {method: ours[f"crowd-{i}"]["kv"]["rounds"][-1] for i, method in enumerate(CROWD_METHODS)}
    pyramid = last["pyramid-rkv"]["layer_budgets"]
    assert pyramid == sorted(pyramid, reverse=True)
    assert len(set(pyramid)) > 20
    assert len(set(last["lava"]["layer_budgets"])) > 1
    assert all(
        last[name]["head_min"] == last[name]["head_max"] for name in ("snapkv", "g-kv", "vase", "h2o", "streaming")
    )
    assert last["ada-rkv"]["head_min"] < last["ada-rkv"]["head_max"]
    assert {round(layer) for layer in last["head-only"]["layer_budgets"]} == {BUDGET}


def test_neighbours_change_no_token(ours: Results) -> None:
    assert ours["among"]["token_ids"] == ours["alone"]["token_ids"]


def test_an_aborted_request_leaves_nothing_behind(ours: Results) -> None:
    """The idle check of the pool ran after it, or the job would have failed."""
    assert len(ours["aborted"]["token_ids"]) >= 150
    assert ours["aborted"]["finish_reason"] == ""


def test_an_aborted_request_stops_with_the_step_that_runs(ours: Results) -> None:
    """One step runs while the last one's token is on its way out, and another may start before the abort is read."""
    aborted = ours["aborted"]
    assert aborted["made"] <= len(aborted["token_ids"]) + 2 < 320


def test_options_that_cannot_be_honoured_end_the_request(ours: Results) -> None:
    assert ours["invalid"]["error"] == "InvalidRequestError"
    assert "kv.budget_tokens is 8; allowed: 32 or more" in ours["invalid"]["message"]


def test_a_seed_gives_the_same_text_in_any_batch(ours: Results) -> None:
    assert ours["seed-1"]["token_ids"] == ours["seed-2"]["token_ids"]
    assert ours["seed-1"]["token_ids"] != ours["other"]["token_ids"][: len(ours["seed-1"]["token_ids"])]
