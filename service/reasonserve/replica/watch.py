"""Ends what waits for an engine that died.

SGLang notices a dead scheduler by a signal handler, and a Ray Serve replica runs it off the main thread, where there
is none: without this, a request would wait for its next token until somebody kills the replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from reasonserve.errors import UnavailableError
from reasonserve.replica.protocol import Engine

PERIOD_S = 0.25
DEAD_MESSAGE = "The engine of this replica died; retry, another replica takes over."


class EngineWatch:
    """Looks at an engine's processes from time to time; belongs to one event loop.

    Args:
        engine: The engine.
        period_s: Seconds between two looks.
    """

    def __init__(self, engine: Engine, *, period_s: float = PERIOD_S) -> None:
        self._engine = engine
        self._period_s = period_s
        self._guarded: set[asyncio.Task[object]] = set()
        self._cut: set[asyncio.Task[object]] = set()
        self._task: asyncio.Task[None] | None = None
        self.is_dead = False

    def start(self) -> None:
        """Starts watching, on the running loop."""
        self._task = asyncio.create_task(self._watch(), name="engine-watch")

    async def stop(self) -> None:
        """Ends watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Runs its body, one wait for the engine, and cuts it short when the engine dies.

        Raises:
            UnavailableError: The engine died.
        """
        if self.is_dead:
            raise UnavailableError(DEAD_MESSAGE)
        task = asyncio.current_task()
        assert task is not None
        cancelled_before = task.cancelling()
        self._guarded.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task in self._cut and task.uncancel() <= cancelled_before:
                raise UnavailableError(DEAD_MESSAGE) from None
            raise
        finally:
            self._guarded.discard(task)
            self._cut.discard(task)

    async def _watch(self) -> None:
        while True:
            try:
                await self._engine.check_health()
            except UnavailableError:
                self.is_dead = True
                for task in self._guarded:
                    self._cut.add(task)
                    task.cancel()
                return
            await asyncio.sleep(self._period_s)
