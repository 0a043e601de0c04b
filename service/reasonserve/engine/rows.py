"""What a round does to a request's row in SGLang's bookkeeping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req

    from reasonserve.engine.requests import RequestState


def give_back_tail(req: Req, state: RequestState, tree_cache: Any) -> None:
    """Ends the row after its owned slots and gives the tail's slots to SGLang's allocator."""
    allocated, end = req.kv.kv_allocated_len, state.pinned_slots + state.kv.budget_tokens
    tree_cache.free_kv_row(req.kv, [(end, allocated)])
    _shorten(req, state, end)


def rebase(req: Req, state: RequestState, tree_cache: Any, req_to_token: torch.Tensor) -> None:
    """Moves the owned slots to the row's start and lets the prompt go.

    The prefix tree keeps its own copy of the prompt until it needs the room; the part that the tree does not
    own is freed here.
    """
    kv, prompt, budget = req.kv, state.pinned_slots, state.kv.budget_tokens
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
    # The row no longer spells the token ids, so the tree must not learn it.
    req.skip_radix_cache_insert = True
