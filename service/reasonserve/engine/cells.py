"""Where a cell lies: arithmetic of cell ids.

A *cell* is one (layer, slot, kv head) place of the pool; its id is ``(layer * num_slots + slot) * num_kv_heads +
kv_head``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class CellLayout:
    """The shape of a pool.

    Attributes:
        num_layers: Layers L.
        num_slots: Slots of a layer, SGLang's padding slot included.
        num_kv_heads: KV heads H.
    """

    num_layers: int
    num_slots: int
    num_kv_heads: int

    @property
    def cells_per_slot(self) -> int:
        """Cells of one slot over all layers and kv heads."""
        return self.num_layers * self.num_kv_heads

    def cell_ids(self, slots_N: torch.Tensor) -> torch.Tensor:
        """Returns the cells of slots in every layer and kv head.

        Args:
            slots_N: Slot ids. [N]

        Returns:
            Cell ids, int64. [L, H, N]
        """
        layers_L = torch.arange(self.num_layers, device=slots_N.device)
        heads_H = torch.arange(self.num_kv_heads, device=slots_N.device)
        slots_LN = layers_L[:, None] * self.num_slots + slots_N.long()
        return slots_LN[:, None, :] * self.num_kv_heads + heads_H[:, None]

    def slots_of(self, cells: torch.Tensor) -> torch.Tensor:
        """Returns the slot that each cell lies in, in the shape of ``cells``."""
        return cells.div(self.num_kv_heads, rounding_mode="floor") % self.num_slots
