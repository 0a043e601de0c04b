"""When an engine made its steps, by the clock of its scheduler and not of who reads its messages."""

from __future__ import annotations

import threading
import time
from typing import Any

POLL_S = 0.002
"""How often the scheduler's figures are looked at; far below the time of a step."""


class StepClock:
    """Notes when each engine step ended, from the figures that SGLang's scheduler publishes after each.

    The engine must publish after every step (``load_snapshot_publish_interval=1``). What an idle scheduler
    publishes is no step. A process that reads the outputs late would see several steps at once; the time
    that the scheduler itself wrote down does not depend on the reader.

    Args:
        reader: SGLang's reader of those figures (``TokenizerManager.load_snapshot_reader``).
    """

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="step-clock", daemon=True)
        self.times: list[float] = []

    def start(self) -> None:
        """Begins to watch, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch."""
        self._ended.set()
        self._thread.join()

    def between(self, start: float, end: float) -> int:
        """Returns the steps that ended between two times of ``time.perf_counter``."""
        return sum(start < t < end for t in self.times)

    def _watch(self) -> None:
        last = 0.0
        while not self._ended.wait(POLL_S):
            for seen in self._reader.read_all():
                is_busy = seen.num_running_reqs + seen.num_waiting_reqs > 0
                if seen.timestamp != last and is_busy:
                    self.times.append(seen.timestamp - time.time() + time.perf_counter())
                last = seen.timestamp
