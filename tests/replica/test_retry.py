"""The wait that a refused client is told."""

import pytest

from reasonserve.replica.retry import MAX_RETRY_S, MIN_RETRY_S, Release, retry_after_s


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
    assert retry_after_s(shortfall, releases, unknown_s=7.0) == pytest.approx(seconds)
