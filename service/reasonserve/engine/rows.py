"""What a round does to a request's row in SGLang's bookkeeping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req

    from reasonserve.engine.pool import OneTensorPool
    from reasonserve.engine.requests import RequestState


def give_back_tail(req: Req, state: RequestState, tree_cache: Any) -> None:
    """Ends the row after its budget's slots and gives back the others: the tail, and what a squeeze frees."""
    allocated, end = req.kv.kv_allocated_len, state.pinned_slots + state.budget_tokens
    tree_cache.free_kv_row(req.kv, [(end, allocated)])
    _shorten(req, state, end)


def own_budget(req: Req, state: RequestState, tree_cache: Any, pool: OneTensorPool, req_to_token: torch.Tensor) -> bool:
    """Makes the last S slots of a dense row, or more, the request's own, before an evictable prompt competes.

    A short output has not S slots of its own yet. The missing ones are taken now and the end of the shared prompt
    is copied into them, which the request's reservation of ``prompt + S + buffer`` has room for.

    Returns:
        False when the pool has no room now; the row is unchanged and the round must wait.
    """
    kv, allocator = req.kv, tree_cache.token_to_kv_pool_allocator
    missing = max(0, state.budget_tokens - (kv.kv_allocated_len - kv.cache_protected_len))
    start, end = kv.cache_protected_len - missing, kv.cache_protected_len
    if missing:
        allocator.evict_to_free_tokens(tree_cache, missing)
        if (copies := allocator.alloc(missing)) is None:
            return False
        row = req_to_token[kv.req_pool_idx]
        for buffer_SHD in (*pool.k_buffer, *pool.v_buffer):
            buffer_SHD[copies] = buffer_SHD[row[start:end].long()]
        row[start:end] = copies.to(row.dtype)
        state.count(kv.kv_allocated_len + missing)
    kv.cache_protected_len = state.pinned_slots = start
    return True


def rebase(req: Req, state: RequestState, tree_cache: Any, req_to_token: torch.Tensor) -> None:
    """Moves the owned slots to the row's start and lets the prompt go.

    The prefix tree keeps its own copy of the prompt until it needs the room; the part that the tree does not
    own is freed here.
    """
    kv, prompt, budget = req.kv, state.pinned_slots, state.budget_tokens
    tree_cache.free_kv_row(kv, [(kv.cache_protected_len, prompt), (prompt + budget, kv.kv_allocated_len)])
    req_to_token[kv.req_pool_idx, :budget] = req_to_token[kv.req_pool_idx, prompt : prompt + budget].clone()
    tree_cache.unlock(req.lock)
    req.lock = None
    kv.cache_protected_len = 0
    state.pinned_slots = state.shared_slots = 0
    _shorten(req, state, budget)


def _shorten(req: Req, state: RequestState, length: int) -> None:
    state.released_slots += req.kv.kv_allocated_len - length
    req.kv.kv_allocated_len = req.kv.kv_committed_len = length
    state.settle()
    # The row no longer spells the token ids, so the tree must not learn it.
    req.skip_radix_cache_insert = True
