"""Decode attention of dense and of compressed requests, in one call per layer over one set of tables.

Prefill stays with one of SGLang's own backends: a prompt is dense until its request's first round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from sglang.srt.layers.attention.base_attn_backend import AttentionBackend, SharedReadEnds
from sglang.srt.mem_cache.memory_pool import KVWriteLoc

from reasonalloc.ops import launch
from reasonalloc.ops.attend import attend_segments
from reasonserve.engine.plan import DecodePlan

if TYPE_CHECKING:
    from sglang.srt.layers.radix_attention import RadixAttention
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch, ForwardMode

    from reasonserve.engine.compressor import Compressor

_WARM_BATCHES = (1, 1024)
"""Batches of one token each that compile the program of one thread and the one of many."""


class CellAttention(AttentionBackend):
    """SGLang attention backend ``reasonalloc``, for decoding."""

    forward_metadata: DecodePlan | None

    def __init__(self, compressor: Compressor) -> None:
        super().__init__()
        self._compressor = compressor
        self._planner = compressor.planner
        self._compile(compressor.num_heads)

    def init_forward_metadata(self, forward_batch: ForwardBatch) -> None:
        """Plans a decode step that runs without a CUDA graph; other modes need no plan here."""
        self.forward_metadata = None
        if forward_batch.forward_mode.is_decode():
            capturing = self._compressor.windows.rows_in_use > 0
            self._plan(forward_batch, capturing=capturing)
            self.init_forward_metadata_in_graph(forward_batch)

    def init_cuda_graph_state(self, max_bs: int, max_num_tokens: int) -> None:
        """Makes room for the largest batch that is captured, padding included."""
        self._planner.reserve(max_bs)

    def init_forward_metadata_out_graph(self, forward_batch: ForwardBatch, in_capture: bool = False) -> None:
        """Chooses the plan that a captured step reads; the graph itself brings it up to date.

        A graph always captures queries: which request needs them may change from one replay to the next.
        """
        self._plan(forward_batch, capturing=True)

    def init_forward_metadata_in_graph(self, forward_batch: ForwardBatch) -> None:
        """Plans the step from what lies on the device; recorded once, and run by every replay."""
        if self.forward_metadata is not None:
            self._planner.fill(self.forward_metadata, forward_batch.req_pool_indices, forward_batch.seq_lens)

    def get_cuda_graph_seq_len_fill_value(self) -> int:
        """Returns the length of a padded row, which attends to nothing."""
        return 0

    def shared_read_ends(self, fm: ForwardMode) -> SharedReadEnds:
        """Says that every layer reads ``req_to_token``, tables and cells: a round waits for the whole step."""
        return SharedReadEnds.POST_REPLAY if fm.is_decode() else super().shared_read_ends(fm)

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

    def _plan(self, forward_batch: ForwardBatch, *, capturing: bool) -> None:
        self.forward_metadata = self._planner.view(forward_batch.batch_size, capturing=capturing)

    def _compile(self, num_heads: int) -> None:
        """Attends once over few tokens and once over many, so that the first request does not wait for a compiler."""
        pool = self._compressor.pool
        by_kernel = launch.use_kernel(pool.k_cells.device)  # one kernel serves any batch
        for batch in _WARM_BATCHES[:1] if by_kernel else _WARM_BATCHES:
            self._planner.reserve(batch)
            plan = self._planner.view(batch, capturing=False)
            rows_B = torch.zeros(batch, dtype=torch.int64, device=pool.k_cells.device)
            self._planner.fill(plan, rows_B, rows_B + 1)
            queries_BQD = pool.k_cells.new_zeros((batch, num_heads, pool.head_dim))
            attend_segments(queries_BQD, pool.k_cells, pool.v_cells, plan.segments, layer=0, scale=1.0)
