"""The KV pool as one tensor, so that any cell is reachable from one base pointer."""

from __future__ import annotations

import torch
from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool


class OneTensorPool(MHATokenToKVPool):
    """SGLang's multi-head pool with all layers in one K and one V tensor.

    SGLang keeps reading ``k_buffer[layer]`` and ``v_buffer[layer]``, which are views. A *cell* is one
    (layer, slot, kv head) place; its id is ``(layer * num_slots + slot) * num_kv_heads + kv_head``.

    Attributes:
        k_cells, v_cells: The pools by cell id. [L * num_slots * H, D]
        num_slots: Slots of a layer, SGLang's padding slot included.
    """

    k_cells: torch.Tensor
    v_cells: torch.Tensor
    num_slots: int

    def _create_buffers_normal(self) -> None:
        if self.kv_cache_layout != "nhd" or self.head_dim != self.v_head_dim:
            raise ValueError(
                f"The cell pool needs the layout 'nhd' and equal widths of K and V; got {self.kv_cache_layout!r}, "
                f"{self.head_dim} and {self.v_head_dim}. Unset the KV layout option, or serve this model elsewhere."
            )
        self.num_slots = self.size + self.page_size
        shape = (self.layer_num, self.num_slots, self.head_num, self.head_dim)
        with self.memory_saver_adapter.region("kv_cache"):
            k_LSHD = torch.zeros(shape, dtype=self.store_dtype, device=self.device)
            v_LSHD = torch.zeros(shape, dtype=self.store_dtype, device=self.device)
        self.k_buffer = list(k_LSHD.unbind(0))
        self.v_buffer = list(v_LSHD.unbind(0))
        self.k_cells = k_LSHD.view(-1, self.head_dim)
        self.v_cells = v_LSHD.view(-1, self.head_dim)

    def cell_ids(self, slots_N: torch.Tensor) -> torch.Tensor:
        """Returns the cells of slots in every layer and kv head.

        Args:
            slots_N: Slot ids. [N]

        Returns:
            Cell ids, int64. [L, H, N]
        """
        layers_L = torch.arange(self.layer_num, device=slots_N.device)
        heads_H = torch.arange(self.head_num, device=slots_N.device)
        slots_LN = layers_L[:, None] * self.num_slots + slots_N.long()
        cells_LHN: torch.Tensor = slots_LN[:, None, :] * self.head_num + heads_H[:, None]
        return cells_LHN
