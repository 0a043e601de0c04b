"""When the scheduler's steps ended, read from what it publishes; no engine runs here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from reasonserve.bench.step_clock import StepClock


@dataclass(frozen=True)
class Published:
    timestamp: float
    num_running_reqs: int = 1
    num_waiting_reqs: int = 0


class Reader:
    """Publishes one thing after another, each read several times, as a reader faster than the engine does."""

    def __init__(self, published: list[Published]) -> None:
        self._reads: Iterator[Published] = iter([p for p in published for _ in range(3)])
        self._last = published[-1]
        self.is_done = False

    def read_all(self) -> list[Published]:
        read = next(self._reads, None)
        self.is_done = read is None
        return [read or self._last]


def watched(published: list[Published]) -> StepClock:
    reader = Reader(published)
    clock = StepClock(reader)
    clock.start()
    while not reader.is_done:
        time.sleep(0.001)
    clock.stop()
    return clock


def test_each_step_counts_once_at_the_time_that_the_scheduler_wrote() -> None:
    now, here = time.time(), time.perf_counter()
    clock = watched([Published(now - 0.3), Published(now - 0.2), Published(now - 0.1)])
    assert clock.times == pytest.approx([here - 0.3, here - 0.2, here - 0.1], abs=0.01)
    assert clock.between(here - 0.25, here) == 2


def test_what_an_idle_scheduler_publishes_is_no_step() -> None:
    now = time.time()
    clock = watched([Published(now - 0.3, 0), Published(now - 0.2, 0, 1), Published(now - 0.1, 0)])
    assert len(clock.times) == 1
