"""The shell around ``Admission``: requests that wait, and the engine that is told of new budgets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from reasonserve.errors import BudgetExhaustedError, UnavailableError
from reasonserve.replica.admission import Admission, Entry, Grant, Lease

TICK_S = 0.5
"""How often budgets are looked at without an event: a lease may have lapsed, a quiet time may have passed."""

RETELL_S = 0.02
"""A request that was admitted a moment ago may not have reached the engine yet."""


class Squeezer(Protocol):
    """The part of an engine that moves budgets; see ``Engine``."""

    async def set_budgets(self, budgets: Mapping[str, int]) -> bool:
        """Sets budgets of running requests; False where one of the ids does not run."""


class Desk:
    """Admits requests, or lets them wait; belongs to one event loop.

    Args:
        admission: Who decides.
        engine: Where running requests get new budgets.
        clock: Seconds of a monotonic clock.
    """

    def __init__(self, *, admission: Admission, engine: Squeezer, clock: Callable[[], float] = time.monotonic) -> None:
        self._admission = admission
        self._engine = engine
        self._clock = clock
        self._waiting: dict[str, asyncio.Future[Grant]] = {}
        self._untold: dict[str, int] = {}
        self._telling: asyncio.Task[None] | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._listener: Callable[[], None] = lambda: None

    def on_change(self, listener: Callable[[], None]) -> None:
        """Has a function called after each change of use or demand."""
        self._listener = listener

    def start(self) -> None:
        """Starts looking at budgets from time to time."""
        self._ticking = asyncio.create_task(self._tick_forever(), name="admission")

    async def stop(self) -> None:
        """Ends what runs in the background."""
        tasks = [task for task in (self._ticking, self._telling) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def enter(self, entry: Entry) -> Grant:
        """Returns a request's admission, after a wait where it has to; undo it with ``leave``.

        Raises:
            InvalidRequestError, UnavailableError: As ``Admission.enter``.
            BudgetExhaustedError: There is no room, and there was none for as long as the request may wait.
        """
        future: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self._waiting[entry.request_id] = future
        try:
            self._admission.enter(entry, now=self._clock())
            self._after_change()
            if not future.done():
                await asyncio.wait((future,), timeout=self._admission.patience_s(entry.request_id))
            if not future.done():
                raise self._admission.give_up(entry.request_id, now=self._clock())
            return future.result()
        except BudgetExhaustedError:
            self._after_change()
            raise
        finally:
            self._waiting.pop(entry.request_id, None)

    def leave(self, request_id: str) -> None:
        """Gives back whatever a request has, a place in the queue included."""
        self._untold.pop(request_id, None)
        if self._admission.leave(request_id, now=self._clock()):
            self._after_change()

    def progress(self, request_id: str, output_tokens: int, rounds: int) -> None:
        """Notes how far a request has come."""
        self._admission.progress(request_id, output_tokens, now=self._clock())
        if rounds:
            self._admission.prompt_gone(request_id, now=self._clock())

    def apply_lease(self, lease: Lease, *, granted_at: float) -> None:
        """Puts a lease in force."""
        self._admission.apply_lease(lease, granted_at=granted_at, now=self._clock())
        self._after_change(quietly=True)

    def _after_change(self, *, quietly: bool = False) -> None:
        """Wakes whom a change admitted, and tells the engine of new budgets."""
        granted, budgets = self._admission.take()
        for request_id, grant in granted.items():
            future = self._waiting.get(request_id)
            if future is not None and not future.done():
                future.set_result(grant)
        self._tell(budgets)
        if granted or budgets or not quietly:
            self._listener()

    def _tell(self, budgets: Mapping[str, int]) -> None:
        self._untold.update(budgets)
        if self._untold and (self._telling is None or self._telling.done()):
            self._telling = asyncio.create_task(self._tell_engine(), name="budgets")

    async def _tell_engine(self) -> None:
        """Tells the engine of each new budget, the last one of a request only, until it knew all the requests."""
        while self._untold:
            batch, self._untold = self._untold, {}
            try:
                known = await self._engine.set_budgets(batch)
            except UnavailableError:
                return  # the engine died, and with it whatever was to be squeezed
            if not known:
                await asyncio.sleep(RETELL_S)
                running = {r: b for r, b in batch.items() if self._admission.budget_of(r) == b}
                self._untold = running | self._untold

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._admission.tick(now=self._clock())
            self._after_change(quietly=True)
