"""How often the memory is split: at once while that is cheap, and never more than a share of the time."""

from hypothesis import given
from hypothesis import strategies as st

from reasonserve.controller.pace import BURST_S, SHARE, Pace


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 1)), max_size=60))
def test_splits_take_a_bounded_share_of_the_time(steps):
    """Steps are (seconds that pass, what a split takes); a split is made when the pace allows it."""
    pace, now, spent, dearest = Pace(0.0), 0.0, 0.0, 0.0
    for passed, cost in steps:
        now += passed
        if pace.wait_s(now) == 0:
            pace.spend(cost, now)
            spent, dearest = spent + cost, max(dearest, cost)
        assert spent <= BURST_S + SHARE * now + dearest + 1e-9


@given(st.floats(0.001, 10))
def test_the_wait_is_long_enough_and_no_longer(cost):
    pace = Pace(0.0)
    pace.spend(BURST_S + cost, 0.0)
    wait_s = pace.wait_s(0.0)
    assert pace.wait_s(wait_s * 0.99) > 0
    assert pace.wait_s(wait_s + 1e-6) == 0
