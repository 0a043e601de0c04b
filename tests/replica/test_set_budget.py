"""Budgets of running requests: what callers of ``Engine.set_budget`` may rely on, on the fake engine."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonserve.errors import UnavailableError
from reasonserve.kv import MIN_BUDGET_TOKENS, KvRequest, clamp_budget
from reasonserve.replica.fake_engine import FakeEngine
from reasonserve.replica.protocol import EngineRequest, Sampling

PROMPT, BUDGET, BUFFER = 8, 128, 16


def request(kv, max_new_tokens=400):
    return EngineRequest(
        request_id="r", input_ids=(65,) * PROMPT, sampling=Sampling(max_new_tokens=max_new_tokens), kv=kv
    )


def run(changes, kv=None, max_new_tokens=400):
    """Runs one request and sets the budgets of ``changes`` after so many tokens; returns answers and counters."""

    async def body():
        engine, answers, seen = FakeEngine(), [], []
        asked = kv or KvRequest(method="r-kv", budget_tokens=BUDGET, buffer_tokens=BUFFER)
        async for chunk in engine.generate(request(asked, max_new_tokens)):
            seen.append(chunk.kv)
            if chunk.output_tokens in changes:
                answers.append(await engine.set_budget("r", changes[chunk.output_tokens]))
        answers.append(await engine.set_budget("r", BUDGET))
        return answers, seen

    return asyncio.run(body())


def test_a_squeeze_gives_the_surplus_back_and_is_counted():
    answers, seen = run({200: 64})
    assert answers == [True, False]
    assert seen[199].held_slots > PROMPT + 64 + BUFFER
    assert max(s.held_slots for s in seen[200:]) <= PROMPT + 64 + BUFFER
    assert (seen[199].squeezes, seen[-1].squeezes) == (0, 1)


def test_a_grown_request_takes_its_admitted_slots_again_and_no_more():
    _, seen = run({150: 40, 200: 10**6})
    assert max(s.held_slots for s in seen[150:200]) <= PROMPT + 40 + BUFFER
    assert max(s.held_slots for s in seen[200:]) == PROMPT + BUDGET + BUFFER
    assert seen[-1].squeezes == 1


def test_a_request_without_a_budget_is_left_alone():
    answers, seen = run({50: 32}, KvRequest(method="full", budget_tokens=0))
    assert answers == [False, False]
    assert seen[-1].held_slots == PROMPT + 400
    assert seen[-1].squeezes == 0


def test_a_dead_engine_says_so():
    engine = FakeEngine()
    engine.shutdown()
    with pytest.raises(UnavailableError):
        asyncio.run(engine.set_budget("r", 64))


@given(asked=st.integers(-5, 400), admitted=st.integers(MIN_BUDGET_TOKENS, 300))
def test_budgets_stay_between_the_least_and_what_was_admitted(asked, admitted):
    budget = clamp_budget(asked, admitted=admitted)
    assert MIN_BUDGET_TOKENS <= budget <= admitted
    assert budget == asked or asked < MIN_BUDGET_TOKENS or asked > admitted


@given(st.dictionaries(st.integers(1, 390), st.integers(0, 300), max_size=6), st.sampled_from(["pinned", "evictable"]))
def test_what_is_held_never_exceeds_what_was_admitted(changes, prompt_mode):
    _, seen = run(
        changes, KvRequest(method="r-kv", budget_tokens=BUDGET, buffer_tokens=BUFFER, prompt_mode=prompt_mode)
    )
    assert seen[-1].peak_slots <= PROMPT + BUDGET + BUFFER
    assert all(r.evicted_cells >= 0 for r in seen[-1].rounds)
