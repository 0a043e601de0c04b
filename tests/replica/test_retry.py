"""The wait that a refused client is told."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonserve.replica.demand import Demand
from reasonserve.replica.retry import MAX_RETRY_S, MIN_RETRY_S, WINDOW_S, Release, ReleaseRate, retry_after_s


def release(slots, remaining, rate):
    return Release(slots=slots, remaining_tokens=remaining, tokens_per_s=rate)


@pytest.mark.parametrize(
    ("shortfall", "releases", "seconds"),
    [
        (50, [release(100, 300, 10.0), release(100, 200, 10.0)], 20.0),  # the earliest is enough
        (150, [release(100, 300, 10.0), release(100, 200, 10.0)], 30.0),  # both are needed
        (50, [release(100, 300, None), release(40, 100, 20.0)], 15.0),  # no rate yet: the mean of the others
        (50, [release(100, 300, None)], 7.0),  # nothing is known
        (500, [release(100, 300, 10.0)], 7.0),  # releases are not enough
        (50, [], 7.0),
        (50, [release(100, 0, 10.0)], MIN_RETRY_S),
        (50, [release(100, 30_000, 10.0)], MAX_RETRY_S),
    ],
)
def test_wait(shortfall, releases, seconds):
    found = retry_after_s(shortfall, slots_per_s=0.0, releases=releases, unknown_s=7.0)
    assert found == pytest.approx(seconds)


@pytest.mark.parametrize(("rate", "seconds"), [(5.0, 10.0), (2.5, 15.0), (1e-9, 15.0)])
def test_the_sooner_forecast_counts(rate, seconds):
    running = [release(100, 150, 10.0)]
    assert retry_after_s(50, slots_per_s=rate, releases=running, unknown_s=7.0) == pytest.approx(seconds)
    assert retry_after_s(50, slots_per_s=rate, releases=[], unknown_s=7.0) == pytest.approx(min(50 / rate, MAX_RETRY_S))


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 500)), max_size=20), st.floats(0, 60))
def test_the_rate_is_the_documented_sum(steps, idle_s):
    rate, now, seen = ReleaseRate(now=5.0), 5.0, []
    for wait_s, slots in steps:
        now += wait_s
        rate.note(slots, now=now)
        seen.append((now, slots))
    now += idle_s
    observed = 1 - math.exp(-(now - 5.0) / WINDOW_S)
    expected = sum(s * math.exp(-(now - t) / WINDOW_S) for t, s in seen) / WINDOW_S / observed if observed > 0 else 0.0
    assert rate.slots_per_s(now=now) == pytest.approx(expected, rel=1e-6)


def test_a_steady_release_is_seen_as_what_it_is_from_the_start():
    for seconds in (10, 30, 300):
        rate = ReleaseRate(now=0.0)
        for tick in range(seconds * 10):
            rate.note(4, now=(tick + 0.5) / 10)
        assert rate.slots_per_s(now=float(seconds)) == pytest.approx(40.0, rel=0.01)


def test_a_burst_is_what_was_asked_for_within_a_window():
    demand = Demand(now=0.0)
    assert demand.burst_slots("a", 70, window_s=1.0) == 70
    for when, slots in ((1.0, 10), (2.0, 20), (2.5, 30), (9.0, 40)):
        demand.asked("a", slots, now=when)
    assert demand.burst_slots("a", 70, window_s=0.6) == 50
    demand.asked("a", 1, now=9.5)
    assert demand.burst_slots("a", 70, window_s=0.9) == 50
    assert demand.burst_slots("a", 70, window_s=8.0) == 10 + 20 + 30 + 40
