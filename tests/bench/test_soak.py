"""The soak's work is what it claims, and its account misses nothing; no engine runs here."""

from __future__ import annotations

from typing import Any

import pytest

from reasonserve.bench.soak import FULL, QUICK, account, mixed_work, shared_work

CACHED = (10, 10)


@pytest.fixture
def work() -> list[dict[str, Any]]:
    return mixed_work(QUICK, 1000)


def results_of(work: list[dict[str, Any]]) -> dict[str, Any]:
    """What an engine without fault would leave; its pool was short once."""
    results: dict[str, Any] = {"waves": [{"seconds": 2.0}], "used_slots": 0}
    for request in work:
        if request.get("refused"):
            results[request["id"]] = {"error": "InvalidRequestError", "message": "no; ask for more"}
            continue
        wanted = request["sampling"]["max_new_tokens"]
        tokens = min(wanted, request.get("abort_after", wanted))
        kv = {"rounds": [], "squeezes": 0}
        reason = "length" if tokens == wanted else ""
        results[request["id"]] = {"token_ids": [0] * tokens, "finish_reason": reason, "retractions": 0, "kv": kv}
    _unasked(work, results)["retractions"] = 1
    return results


def _unasked(work: list[dict[str, Any]], results: dict[str, Any]) -> dict[str, Any]:
    """The result of a request that nobody aborts, refuses or squeezes."""
    odd = ("abort_after", "refused", "set_budget")
    found: dict[str, Any] = results[next(r["id"] for r in work if not any(key in r for key in odd))]
    return found


def test_the_work_is_as_unlike_as_it_claims() -> None:
    work = mixed_work(FULL, 1000)
    assert work == mixed_work(FULL, 1000)
    assert len(work) == 2000
    budgets = [r["kv"]["budget_tokens"] for r in work if r["kv"]["method"] != "full" and not r.get("refused")]
    assert min(budgets) in range(32, 40)
    assert max(budgets) in range(900, 1025)
    assert sum("abort_after" in r for r in work) == pytest.approx(200, abs=40)
    assert sum("set_budget" in r for r in work) == pytest.approx(80, abs=30)
    assert all(32 <= r["set_budget"][0]["to"] <= r["kv"]["budget_tokens"] for r in work if "set_budget" in r)
    dense = sum(len(r["input_ids"]) + r["sampling"]["max_new_tokens"] for r in work)
    assert dense > 50 * FULL.pool_slots


def test_both_engines_get_the_same_prompts() -> None:
    stock, ours = (shared_work(QUICK, 1000, stock=stock) for stock in (True, False))
    assert [w[0]["input_ids"] for w in stock] == [w[0]["input_ids"] for w in ours]
    assert all("kv" not in w[0] for w in stock)
    starts = [tuple(w[0]["input_ids"][:10]) for w in stock]
    assert len(set(starts)) == 8


def test_a_run_without_fault(work: list[dict[str, Any]]) -> None:
    found = account(work, results_of(work), CACHED)
    assert found.faults == ()
    assert sum(found.ends.values()) == len(work)
    assert set(found.ends) == {"finished", "aborted", "refused"}
    assert found.refusals == {"no": found.ends["refused"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"token_ids": [0], "finish_reason": "length"}, r"ended at 1 of"),
        ({"finish_reason": ""}, "without a reason"),
        ({"error": "UnavailableError", "message": "gone"}, "UnavailableError: gone"),
    ],
)
def test_what_goes_wrong_is_a_fault(work: list[dict[str, Any]], change: dict[str, Any], said: str) -> None:
    results = results_of(work)
    plain = next(r for r in work if "abort_after" not in r and not r.get("refused"))
    results[plain["id"]] |= change
    faults = account(work, results, CACHED).faults
    assert len(faults) == 1
    assert said in faults[0]


def test_served_though_not_allowed_is_a_fault(work: list[dict[str, Any]]) -> None:
    results = results_of(work)
    refused = next(r for r in work if r.get("refused"))
    results[refused["id"]] = results[next(r for r in work if not r.get("refused"))["id"]]
    assert "was served" in account(work, results, CACHED).faults[0]


def test_a_pool_that_was_never_short_proves_nothing(work: list[dict[str, Any]]) -> None:
    results = results_of(work)
    _unasked(work, results)["retractions"] = 0
    asked = next(r for r in work if "set_budget" in r)
    results[asked["id"]]["kv"] |= {"squeezes": 1}
    assert "never short" in account(work, results, CACHED).faults[0]
    _unasked(work, results)["kv"] |= {"squeezes": 1}
    found = account(work, results, CACHED)
    assert found.faults == ()
    assert (found.squeezes, found.own_squeezes) == (2, 1)


def test_leaks_and_lost_prefixes_are_faults(work: list[dict[str, Any]]) -> None:
    results = {**results_of(work), "used_slots": 3}
    assert account(work, results, (9, 10)).faults == (
        "3 slots are in use after the last request ended.",
        "9 prompt tokens were found in the prefix cache; stock SGLang found 10.",
    )
