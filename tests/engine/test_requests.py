"""When a request rounds, and which options are refused: pure decisions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonserve.engine.requests import RequestState, parse_kv_request
from reasonserve.kv import CUSTOM_PARAMS_KEY, KvCounters, KvRequest

WINDOW = 8


def test_options_survive_the_way_to_the_scheduler() -> None:
    request = KvRequest(method="r-kv", budget_tokens=64, buffer_tokens=32)
    assert parse_kv_request(request.to_custom_params()) == request


def test_absent_options_are_none() -> None:
    assert parse_kv_request(None) is None
    assert parse_kv_request({"thinking_budget": 5}) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "h3o"}, r"kv\.method is not known: method is 'h3o'; give one of reasonalloc, .* full is no com"),
        ({"budget_tokens": 31}, r"kv\.budget_tokens is 31; allowed: 32 or more"),
        ({"prompt_mode": "lost"}, r"kv\.prompt_mode is 'lost'; allowed: pinned, evictable"),
        ({"colour": "blue"}, r"colour"),
    ],
)
def test_what_cannot_be_honoured_is_refused(change: dict[str, object], message: str) -> None:
    options = KvRequest(method="r-kv", budget_tokens=64).to_custom_params()[CUSTOM_PARAMS_KEY] | change
    with pytest.raises(ValueError, match=message):
        parse_kv_request({CUSTOM_PARAMS_KEY: options})


@given(
    prompt=st.integers(1, 300), budget=st.integers(32, 300), buffer=st.integers(16, 200), tokens=st.integers(1, 2000)
)
def test_private_slots_never_exceed_budget_and_buffer(prompt: int, budget: int, buffer: int, tokens: int) -> None:
    """Replays the driver's decisions over a whole generation and counts the slots it would hold."""
    kv = KvRequest(method="r-kv", budget_tokens=budget, buffer_tokens=buffer)
    state = RequestState(kv=kv, prompt_tokens=prompt)
    allocated, rounds = prompt, 0
    for _ in range(tokens):
        if state.round_due(allocated, WINDOW):
            assert state.captured(allocated) == WINDOW
            allocated, state.window_row, rounds = prompt + budget, -1, rounds + 1
        if state.window_row < 0 and state.captures_next(allocated + 1, WINDOW):
            state.window_row, state.window_start = 0, allocated
        allocated += 1
        assert allocated - prompt <= budget + buffer
    assert rounds == max(0, (tokens - budget - 1) // buffer)


@given(prompt=st.integers(1, 300), budget=st.integers(32, 300), buffer=st.integers(16, 200))
def test_an_evictable_prompt_counts_against_the_budget(prompt: int, budget: int, buffer: int) -> None:
    """The first round is due when prompt and output fill S + T, or as soon as its window is full."""
    kv = KvRequest(method="r-kv", budget_tokens=budget, buffer_tokens=buffer, prompt_mode="evictable")
    state = RequestState(kv=kv, prompt_tokens=prompt)
    allocated = prompt
    while not state.round_due(allocated, WINDOW):
        if state.window_row < 0 and state.captures_next(allocated + 1, WINDOW):
            state.window_row, state.window_start = 0, allocated
        allocated += 1
    assert allocated == max(budget + buffer, prompt + WINDOW)


def test_what_is_left_to_grow_is_exact() -> None:
    state = RequestState(kv=KvRequest(method="r-kv", budget_tokens=64, buffer_tokens=32), prompt_tokens=10)
    assert state.growth_left(10, 500, WINDOW) == 96  # before its prefill
    assert state.growth_left(10, 20, WINDOW) == 20  # ends before its budget is full
    assert state.growth_left(90, 500, WINDOW) == 16
    assert state.growth_left(106, 500, 0) == 0  # full, a round is due
    assert state.growth_left(106, 500, 3) == 3  # squeezed on the way, its queries are not all there
    assert state.growth_left(400, 500, WINDOW) == WINDOW  # recomputed after a retraction
    full = RequestState(kv=KvRequest(method="full", budget_tokens=0), prompt_tokens=10)
    assert full.growth_left(90, 500, WINDOW) == 500


def test_full_requests_never_round() -> None:
    state = RequestState(kv=KvRequest(method="full", budget_tokens=0), prompt_tokens=4)
    state.window_row = 0
    assert not any(state.round_due(n, WINDOW) or state.captures_next(n, WINDOW) for n in range(4, 3000))


def test_a_recomputed_request_waits_for_a_full_window() -> None:
    """After a retraction the tail is long at once, but nothing was captured yet."""
    state = RequestState(kv=KvRequest(method="r-kv", budget_tokens=32, buffer_tokens=16), prompt_tokens=10)
    assert state.tail_slots(500) > state.kv.buffer_tokens
    assert not state.round_due(500, WINDOW)
    assert state.captures_next(501, WINDOW)
    state.window_row, state.window_start = 0, 500
    assert not state.round_due(507, WINDOW)
    assert state.round_due(508, WINDOW)


def test_counters_fold_what_each_token_carries() -> None:
    event = {
        "unix_time_s": 1.0,
        "output_tokens": 256,
        "kept_cells": 10,
        "evicted_cells": 5,
        "seconds": 0.1,
        "layer_budgets": [128.0, 64.0],
        "head_min": 16,
        "head_max": 200,
    }
    counters = KvCounters().updated({"held": 5, "peak": 5, "squeezes": 0, "round": None})
    counters = counters.updated({"held": 3, "peak": 4, "squeezes": 2, "round": event})
    assert (counters.held_slots, counters.peak_slots, counters.squeezes) == (3, 5, 2)
    assert [r.layer_budgets for r in counters.rounds] == [(128.0, 64.0)]
