"""The KV pool as one tensor, so that any cell is reachable from one base pointer."""

from __future__ import annotations

import torch
from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool

from reasonserve.engine.cells import CellLayout


class OneTensorPool(MHATokenToKVPool):
    """SGLang's multi-head pool with all layers in one K and one V tensor.

    SGLang keeps reading ``k_buffer[layer]`` and ``v_buffer[layer]``, which are views.

    Attributes:
        k_cells, v_cells: The pools by cell id. [L * num_slots * H, D]
        layout: Where each cell lies.
    """

    k_cells: torch.Tensor
    v_cells: torch.Tensor
    layout: CellLayout

    def _create_buffers_normal(self) -> None:
        if self.kv_cache_layout != "nhd" or self.head_dim != self.v_head_dim:
            raise ValueError(
                f"The cell pool needs the layout 'nhd' and equal widths of K and V; got {self.kv_cache_layout!r}, "
                f"{self.head_dim} and {self.v_head_dim}. Unset the KV layout option, or serve this model elsewhere."
            )
        self.layout = CellLayout(self.layer_num, self.size + self.page_size, self.head_num)
        shape = (self.layer_num, self.layout.num_slots, self.head_num, self.head_dim)
        with self.memory_saver_adapter.region("kv_cache"):
            k_LSHD = torch.zeros(shape, dtype=self.store_dtype, device=self.device)
            v_LSHD = torch.zeros(shape, dtype=self.store_dtype, device=self.device)
        self.k_buffer = list(k_LSHD.unbind(0))
        self.v_buffer = list(v_LSHD.unbind(0))
        self.k_cells = k_LSHD.view(-1, self.head_dim)
        self.v_cells = v_LSHD.view(-1, self.head_dim)
