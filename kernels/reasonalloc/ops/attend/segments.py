"""Where the tokens of compressed and dense requests lie, without a table of all of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from reasonalloc.shapes import check_axes, check_dtype


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Segments:
    """Static tables of all requests, and which of their rows a batch reads.

    A request attends to ``[pinned prefix slots | owned cells | tail slots]``. A slot is one cell for every
    layer and kv head, so prefix and tail need no entry per head; only the owned lists do. A request
    that was never compressed is all prefix.

    Every tensor stays at its address and every size is a capacity, so a captured CUDA graph stays
    valid while contents change. What a request cannot reach is never read and may hold anything.

    Attributes:
        slots_RN: int32 or int64 slots of each request row: ``[prefix | owned | tail]``.
        slot_rows_B: int64 row of each request in ``slots_RN``.
        prefix_B: int64 pinned slots, at the row's start.
        tail_start_B: int64 place of the first tail slot in the row.
        tail_end_B: int64 place behind the last tail slot; equal to ``tail_start_B`` without a tail.
        cells_TLHK: int64 owned cells of each table row.
        owned_TLH: int64 number of owned cells.
        table_rows_B: int64 row of each request in ``cells_TLHK``; negative without owned cells.
        num_slots: Slots per layer of the pool; cell ``(layer * num_slots + slot) * H + head``.
    """

    slots_RN: Tensor
    slot_rows_B: Tensor
    prefix_B: Tensor
    tail_start_B: Tensor
    tail_end_B: Tensor
    cells_TLHK: Tensor
    owned_TLH: Tensor
    table_rows_B: Tensor
    num_slots: int

    def check(self, queries_BQD: Tensor, k_pool_CD: Tensor, v_pool_CD: Tensor, layer: int) -> None:
        """Checks shapes and dtypes against those of a call.

        Raises:
            ValueError: They do not agree, or ``layer`` is out of range.
        """
        sizes = check_axes(
            queries_BQD=queries_BQD,
            k_pool_CD=k_pool_CD,
            v_pool_CD=v_pool_CD,
            slots_RN=self.slots_RN,
            slot_rows_B=self.slot_rows_B,
            prefix_B=self.prefix_B,
            tail_start_B=self.tail_start_B,
            tail_end_B=self.tail_end_B,
            cells_TLHK=self.cells_TLHK,
            owned_TLH=self.owned_TLH,
            table_rows_B=self.table_rows_B,
        )
        check_dtype(
            torch.int64,
            slot_rows_B=self.slot_rows_B,
            prefix_B=self.prefix_B,
            tail_start_B=self.tail_start_B,
            tail_end_B=self.tail_end_B,
            cells_TLHK=self.cells_TLHK,
            owned_TLH=self.owned_TLH,
            table_rows_B=self.table_rows_B,
        )
        if self.slots_RN.dtype not in (torch.int32, torch.int64):
            raise ValueError(f"slots_RN is {self.slots_RN.dtype}; give torch.int32 or torch.int64")
        if not 0 <= layer < sizes["L"]:
            raise ValueError(f"layer is {layer}; give 0 to {sizes['L'] - 1}")
        if sizes["L"] * self.num_slots * sizes["H"] != sizes["C"]:
            raise ValueError(
                f"{sizes['L']} layers of {self.num_slots} slots and {sizes['H']} heads are not the pool's "
                f"{sizes['C']} cells; give the pool of all layers"
            )
