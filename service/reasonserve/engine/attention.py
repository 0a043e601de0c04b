"""Decode attention over dense rows and over cell tables, in one batch.

Prefill stays with the user's backend: a prompt is dense until its request's first round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
from sglang.srt.mem_cache.memory_pool import KVWriteLoc

from reasonalloc.ops.attend import attend_cells, attend_slots

if TYPE_CHECKING:
    from sglang.srt.layers.radix_attention import RadixAttention
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch
    from sglang.srt.model_executor.model_runner import ModelRunner

    from reasonserve.engine.compressor import Compressor
    from reasonserve.engine.requests import RequestState


@dataclass(frozen=True, slots=True)
class DenseRows:
    """Requests of a batch that attend to whole slots.

    Attributes:
        index_B: Their places in the batch.
        slots_BN: Their slots, padded.
        lengths_B: Their slot counts.
    """

    index_B: torch.Tensor
    slots_BN: torch.Tensor
    lengths_B: torch.Tensor


@dataclass(frozen=True, slots=True)
class CellRows:
    """Requests of a batch that attend to cells.

    Attributes:
        index_B: Their places in the batch.
        table_rows_B: Their rows in the cell tables.
        lengths_BLH: Cells of each layer and head: pinned, owned and tail.
        longest: Largest of ``lengths_BLH``.
    """

    index_B: torch.Tensor
    table_rows_B: torch.Tensor
    lengths_BLH: torch.Tensor
    longest: int


@dataclass(frozen=True, slots=True)
class Captures:
    """Requests of a batch whose query belongs to their next round's window.

    Attributes:
        index_B: Their places in the batch.
        window_rows_B: Their rows in the query windows.
        ring_B: The places in their rings.
    """

    index_B: torch.Tensor
    window_rows_B: torch.Tensor
    ring_B: torch.Tensor


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """How each request of a decode batch attends; made once a step, read by every layer."""

    dense: DenseRows | None
    cells: CellRows | None
    captures: Captures | None


class CellAttention(TorchNativeAttnBackend):
    """SGLang attention backend ``reasonalloc``."""

    forward_metadata: DecodePlan | None

    def __init__(self, model_runner: ModelRunner, compressor: Compressor) -> None:
        super().__init__(model_runner)
        self._compressor = compressor

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
        plan = self.forward_metadata
        assert plan is not None, "init_forward_metadata runs before every decode step"
        if save_kv_cache and k is not None:
            self.token_to_kv_pool.set_kv_buffer(layer, KVWriteLoc(forward_batch.out_cache_loc, None), k, v)
        queries_BQD = q.view(-1, layer.tp_q_head_num, layer.qk_head_dim)
        if plan.captures is not None:
            c = plan.captures
            self._compressor.windows.store(layer.layer_id, c.window_rows_B, c.ring_B, queries_BQD[c.index_B])
        output_BQD = torch.empty_like(queries_BQD)
        if plan.dense is not None:
            output_BQD[plan.dense.index_B] = self._attend_dense(queries_BQD, layer, plan.dense)
        if plan.cells is not None:
            output_BQD[plan.cells.index_B] = self._attend_cells(queries_BQD, layer, plan.cells)
        return output_BQD.view(q.shape)

    def _attend_dense(self, queries_BQD: torch.Tensor, layer: RadixAttention, rows: DenseRows) -> torch.Tensor:
        pool = self._compressor.pool
        k_SHD, v_SHD = pool.get_key_buffer(layer.layer_id), pool.get_value_buffer(layer.layer_id)
        return attend_slots(queries_BQD[rows.index_B], k_SHD, v_SHD, rows.slots_BN, rows.lengths_B, layer.scaling)

    def _attend_cells(self, queries_BQD: torch.Tensor, layer: RadixAttention, rows: CellRows) -> torch.Tensor:
        pool = self._compressor.pool
        cells_BHN = self._compressor.tables.cells[rows.table_rows_B, layer.layer_id, :, : rows.longest]
        lengths_BH = rows.lengths_BLH[:, layer.layer_id]
        return attend_cells(queries_BQD[rows.index_B], pool.k_cells, pool.v_cells, cells_BHN, lengths_BH, layer.scaling)

    def _plan(self, forward_batch: ForwardBatch) -> DecodePlan:
        pool_rows = forward_batch.req_pool_indices.tolist()
        lengths = forward_batch.seq_lens.tolist()
        states = [self._compressor.state_in_row(row) for row in pool_rows]
        dense = [i for i, s in enumerate(states) if s is None or s.table_row < 0]
        compressed = [(i, s) for i, s in enumerate(states) if s is not None and s.table_row >= 0]
        capturing = [(i, s) for i, s in enumerate(states) if s is not None and s.window_row >= 0]
        return DecodePlan(
            dense=self._dense_rows(dense, pool_rows, lengths) if dense else None,
            cells=self._cell_rows(compressed, lengths, forward_batch) if compressed else None,
            captures=self._captures(capturing, lengths) if capturing else None,
        )

    def _dense_rows(self, index: list[int], pool_rows: list[int], lengths: list[int]) -> DenseRows:
        longest = max(lengths[i] for i in index)
        rows = torch.tensor([pool_rows[i] for i in index], device=self.device)
        return DenseRows(
            index_B=torch.tensor(index, device=self.device),
            slots_BN=self.req_to_token_pool.req_to_token[rows, :longest].long(),
            lengths_B=torch.tensor([lengths[i] for i in index], device=self.device),
        )

    def _cell_rows(
        self, compressed: list[tuple[int, RequestState]], lengths: list[int], forward_batch: ForwardBatch
    ) -> CellRows:
        """Appends the new token's cells to the tables and counts what each head attends to.

        The place of the new cell follows from the row's length, so doing this twice changes nothing.
        """
        tables, pool = self._compressor.tables, self._compressor.pool
        index_B = torch.tensor([i for i, _ in compressed], device=self.device)
        rows_B = torch.tensor([s.table_row for _, s in compressed], device=self.device)
        pinned_B = torch.tensor([s.pinned_slots for _, s in compressed], device=self.device)
        tail_B = torch.tensor([s.tail_slots(lengths[i]) for i, s in compressed], device=self.device)
        lengths_BLH = tables.owned[rows_B] + (pinned_B + tail_B)[:, None, None]
        new_LHB = pool.cell_ids(forward_batch.out_cache_loc[index_B])
        longest = int(lengths_BLH.max())
        tables.append(rows_B, lengths_BLH - 1, new_LHB.permute(2, 0, 1), longest)
        return CellRows(index_B, rows_B, lengths_BLH, longest)

    def _captures(self, capturing: list[tuple[int, RequestState]], lengths: list[int]) -> Captures:
        window = self._compressor.windows.window
        ring = [(lengths[i] - 1 - s.window_start) % window for i, s in capturing]
        return Captures(
            index_B=torch.tensor([i for i, _ in capturing], device=self.device),
            window_rows_B=torch.tensor([s.window_row for _, s in capturing], device=self.device),
            ring_B=torch.tensor(ring, device=self.device),
        )
