"""Keeps SGLang from retracting requests while bounded ones can give memory up, and gives it back later.

Runs before each decode step, after the rounds that are due. The decisions are those of ``squeeze``.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from reasonserve.engine.squeeze import Holder, Squeezed, regrown_budgets, squeezed_budgets
from reasonserve.kv import MIN_BUDGET_TOKENS

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import ScheduleBatch

    from reasonserve.engine.compressor import Compressor
    from reasonserve.engine.requests import RequestState

ALARM_WINDOWS = 2
"""Query windows that the pool must have room for; with less, bounded requests capture theirs, to be ready in time."""


def relieve(compressor: Compressor, batch: ScheduleBatch, *, has_queue: bool) -> None:
    """Squeezes running requests if the next decode step would not fit the pool; lets them grow back when room is left.

    Args:
        compressor: This process's compressor.
        batch: The running batch.
        has_queue: Whether requests wait; they get room before squeezed ones do.
    """
    cache, settings = batch.tree_cache, compressor.settings
    free = cache.token_to_kv_pool_allocator.available_size() + cache.evictable_size()
    step = sum(1 for _ in compressor.running(batch))
    compressor.pool_is_short = free < ALARM_WINDOWS * settings.window_tokens * step
    if free < step:
        _squeeze(compressor, batch, settings.squeeze_steps * step - free)
    elif not compressor.pool_is_short and not has_queue:
        _regrow(compressor, batch, free - settings.squeeze_steps * step)


def floor_of(state: RequestState, share: float) -> int:
    """Returns the least budget that a request may be squeezed to: a share of what it was admitted with."""
    return min(state.budget_tokens, max(MIN_BUDGET_TOKENS, ceil(share * state.kv.budget_tokens)))


def _squeeze(compressor: Compressor, batch: ScheduleBatch, need: int) -> None:
    settings, places, holders = compressor.settings, [], []
    for i, req, state in compressor.running(batch):
        held = state.budget_tokens + state.surplus_slots(req.kv.kv_allocated_len)
        if state.compressible and state.captured(req.kv.kv_allocated_len) >= settings.window_tokens:
            places.append(i)
            holders.append(Holder(held, state.budget_tokens, floor_of(state, settings.squeeze_floor)))
    budgets = squeezed_budgets(holders, need)
    compressor.squeeze(batch, {i: b for i, b in zip(places, budgets, strict=True) if b is not None})


def _regrow(compressor: Compressor, batch: ScheduleBatch, room: int) -> None:
    low = [state for _, _, state in compressor.running(batch) if state.budget_tokens < state.asked_tokens]
    if low:
        room -= sum(compressor.growth_left(req) for _, req, _ in compressor.running(batch))
        budgets = regrown_budgets([Squeezed(s.budget_tokens, s.asked_tokens) for s in low], room)
        for state, budget in zip(low, budgets, strict=True):
            state.change_budget(budget)
