"""Decode attention of dense and of compressed requests, in one call per layer over one set of tables.

Prefill stays with the user's backend: a prompt is dense until its request's first round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
from sglang.srt.mem_cache.memory_pool import KVWriteLoc

from reasonalloc.ops.attend import Segments, attend_segments

if TYPE_CHECKING:
    from sglang.srt.layers.radix_attention import RadixAttention
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch
    from sglang.srt.model_executor.model_runner import ModelRunner

    from reasonserve.engine.compressor import Compressor
    from reasonserve.engine.requests import RequestState


@dataclass(frozen=True, slots=True)
class Captures:
    """Where each query of a batch is captured; None in a plan where no request nears a round.

    Attributes:
        window_rows_B: Rows in the query windows; the last row for a request that captures nothing.
        ring_B: Places in these rows' rings.
    """

    window_rows_B: torch.Tensor
    ring_B: torch.Tensor


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """What each request of a decode batch attends to; made once a step, read by every layer."""

    segments: Segments
    captures: Captures | None


class CellAttention(TorchNativeAttnBackend):
    """SGLang attention backend ``reasonalloc``."""

    forward_metadata: DecodePlan | None

    def __init__(self, model_runner: ModelRunner, compressor: Compressor) -> None:
        super().__init__(model_runner)
        self._compressor = compressor
        self._compile(compressor.num_heads)

    def init_forward_metadata(self, forward_batch: ForwardBatch) -> None:
        """Plans a decode step; other modes need no plan here."""
        self.forward_metadata = None
        if forward_batch.forward_mode.is_decode():
            self.forward_metadata = self._plan(forward_batch)

    def forward_decode(
        self,
        q: torch.Tensor,
        k: torch.Tensor | None,
        v: torch.Tensor | None,
        layer: RadixAttention,
        forward_batch: ForwardBatch,
        save_kv_cache: bool = True,
        **_: Any,
    ) -> torch.Tensor:
        """Stores the new token's K and V and attends.

        Args:
            q: Queries after RoPE. [B, Hq * D]
            k, v: The new token's keys and values. [B, H, D]
            layer: The layer.
            forward_batch: The batch; its plan was made by ``init_forward_metadata``.
            save_kv_cache: Whether to store K and V.

        Returns:
            Attention output. [B, Hq * D]
        """
        plan, pool = self.forward_metadata, self._compressor.pool
        assert plan is not None, "init_forward_metadata runs before every decode step"
        if save_kv_cache and k is not None:
            pool.set_kv_buffer(layer, KVWriteLoc(forward_batch.out_cache_loc, None), k, v)
        queries_BQD = q.view(-1, layer.tp_q_head_num, layer.qk_head_dim)
        if plan.captures is not None:
            c = plan.captures
            self._compressor.windows.store(layer.layer_id, c.window_rows_B, c.ring_B, queries_BQD)
        return attend_segments(
            queries_BQD, pool.k_cells, pool.v_cells, plan.segments, layer=layer.layer_id, scale=layer.scaling
        ).view(q.shape)

    def _compile(self, num_heads: int) -> None:
        """Attends once over few tokens and once over many, so that the first request does not wait for a compiler."""
        pool = self._compressor.pool
        for batch in (1, 1024):
            rows_B = torch.zeros(batch, dtype=torch.int64, device=self.device)
            segments = self._segments(rows_B, rows_B + 1, [(1, 1, -1)] * batch)
            queries_BQD = pool.k_cells.new_zeros((batch, num_heads, pool.head_dim))
            attend_segments(queries_BQD, pool.k_cells, pool.v_cells, segments, layer=0, scale=1.0)

    def _plan(self, forward_batch: ForwardBatch) -> DecodePlan:
        pool_rows = forward_batch.req_pool_indices.tolist()
        lengths = forward_batch.seq_lens.tolist()
        states = [self._compressor.state_in_row(row) for row in pool_rows]
        bounds = [_bounds(state, length) for state, length in zip(states, lengths, strict=True)]
        segments = self._segments(forward_batch.req_pool_indices.long(), forward_batch.seq_lens.long(), bounds)
        return DecodePlan(segments, self._captures(states, lengths))

    def _segments(self, rows_B: torch.Tensor, lengths_B: torch.Tensor, bounds: list[tuple[int, int, int]]) -> Segments:
        """Says where each request's tokens lie: bounds within its row, in tables that stay where they are."""
        prefix_B, tail_start_B, table_rows_B = torch.tensor(bounds, device=self.device).T.contiguous().unbind(0)
        tables = self._compressor.tables
        return Segments(
            slots_RN=self.req_to_token_pool.req_to_token,
            slot_rows_B=rows_B,
            prefix_B=prefix_B,
            tail_start_B=tail_start_B,
            tail_end_B=lengths_B,
            cells_TLHK=tables.cells,
            owned_TLH=tables.owned,
            table_rows_B=table_rows_B,
            num_slots=self._compressor.pool.layout.num_slots,
        )

    def _captures(self, states: list[RequestState | None], lengths: list[int]) -> Captures | None:
        windows = self._compressor.windows
        if not any(state is not None and state.window_row >= 0 for state in states):
            return None
        places = [
            (windows.nobody, 0)
            if state is None or state.window_row < 0
            else (state.window_row, (length - 1 - state.window_start) % windows.window)
            for state, length in zip(states, lengths, strict=True)
        ]
        rows_B, ring_B = torch.tensor(places, device=self.device).unbind(1)
        return Captures(rows_B, ring_B)


def _bounds(state: RequestState | None, length: int) -> tuple[int, int, int]:
    """Returns where a request's prefix ends, where its tail starts, and its row in the cell tables."""
    if state is None or state.table_row < 0:
        return length, length, -1
    return state.pinned_slots, state.pinned_slots + state.owned_slots, state.table_row
