"""The comparison gives both engines the same work and counts it the same way; no engine runs here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reasonserve.bench.memory import QUICK, Setup, _job, _rows, as_json, table

SETUP = Setup(requests=4, new_tokens=300, budget=64, buffer=32, pool_slots=400, short_tokens=20)
PROMPTS = [[n, 1, 2, 3] for n in range(4)]


def work_of(job: dict) -> list[list[tuple[int, int]]]:
    return [[(len(r["input_ids"]), r["sampling"]["max_new_tokens"]) for r in wave] for wave in job["waves"]]


def results_of(job: dict, seconds: float) -> dict:
    waves = [{"seconds": seconds, "most_running": 2} for _ in job["waves"]]
    tokens = {r["id"]: {"token_ids": [0] * r["sampling"]["max_new_tokens"]} for wave in job["waves"] for r in wave}
    return {"waves": waves, **tokens}


def test_both_engines_get_the_same_work() -> None:
    stock, ours = (_job(engine, SETUP, "model", PROMPTS) for engine in ("stock", "reasonserve"))
    assert work_of(ours) == 2 * work_of(stock)
    assert {key: stock[key] for key in ("dtype", "pool_slots")} == {key: ours[key] for key in ("dtype", "pool_slots")}
    assert all("kv" not in request for wave in stock["waves"] for request in wave)
    starts = [request["input_ids"][:2] for wave in ours["waves"] for request in wave]
    assert len({tuple(start) for start in starts}) == len(starts)  # the prefix cache helps nobody


def test_footprints_decide_how_many_could_run() -> None:
    job = _job("reasonserve", SETUP, "model", PROMPTS)
    rows = {(r.engine, r.work): r for r in _rows("reasonserve", SETUP, PROMPTS, job, results_of(job, 2.0))}
    assert rows["full", "tight"].could_run == 400 // (5 + 300)
    assert rows["reasonalloc 64", "tight"].could_run == 400 // (5 + 96)
    assert rows["full", "tight"].tokens_per_s == pytest.approx(4 * 300 / 2.0)


def test_an_answer_that_ended_early_is_no_figure() -> None:
    job = _job("stock", SETUP, "model", PROMPTS)
    results = results_of(job, 1.0)
    results[job["waves"][0][0]["id"]]["token_ids"].pop()
    with pytest.raises(AssertionError, match="whole length"):
        _rows("stock", SETUP, PROMPTS, job, results)


def test_each_run_is_set_against_the_stock_run_of_its_turn() -> None:
    stock, ours = (_job(engine, SETUP, "model", PROMPTS) for engine in ("stock", "reasonserve"))
    rows = _rows("stock", SETUP, PROMPTS, stock, results_of(stock, 4.0))
    rows += _rows("reasonserve", SETUP, PROMPTS, ours, results_of(ours, 1.0))
    shown = table(rows)
    assert list(shown.columns[-1].cells) == ["1.00x"] * 2 + ["4.00x"] * 4
    assert len(as_json(SETUP, rows)["rows"]) == len(rows)


def test_the_quick_run_is_short_of_memory_without_a_budget() -> None:
    assert QUICK.requests * QUICK.new_tokens > 3 * QUICK.pool_slots


def test_work_that_takes_long_without_a_budget_can_be_left_out() -> None:
    job = _job("reasonserve", replace(SETUP, tight_without_budget=False), "m", PROMPTS)
    ids = {request["id"] for wave in job["waves"] for request in wave}
    assert {i.rpartition("/")[0] for i in ids} == {"full/ample", "reasonalloc 64/ample", "reasonalloc 64/tight"}
