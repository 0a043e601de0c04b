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

    def __post_init__(self) -> None:
        """Checks the tables once, so that the calls of a step need not.

        Raises:
            ValueError: Shapes or dtypes do not agree.
        """
        named = {name: getattr(self, name) for name in self.__slots__ if name != "num_slots"}
        check_axes(**named)
        slots_RN = named.pop("slots_RN")
        check_dtype(torch.int64, **named)
        if slots_RN.dtype not in (torch.int32, torch.int64):
            raise ValueError(f"slots_RN is {slots_RN.dtype}; give torch.int32 or torch.int64")

    def check(self, queries_BQD: Tensor, k_pool_CD: Tensor, v_pool_CD: Tensor, layer: int) -> None:
        """Checks the arguments of a call against the tables.

        Raises:
            ValueError: Shapes or dtypes do not agree, or ``layer`` is out of range.
        """
        layers, heads = self.owned_TLH.shape[1:]
        batch, pool = self.slot_rows_B.shape[0], k_pool_CD.shape
        if queries_BQD.dim() != 3 or queries_BQD.shape[0] != batch or queries_BQD.shape[2] != pool[-1]:
            raise ValueError(
                f"queries_BQD has shape {list(queries_BQD.shape)}; give one of {batch} requests and of the pool's "
                f"{pool[-1]} dimensions"
            )
        if v_pool_CD.shape != pool or not queries_BQD.dtype == k_pool_CD.dtype == v_pool_CD.dtype:
            raise ValueError(
                f"k_pool_CD is {k_pool_CD.dtype} {list(pool)}, v_pool_CD {v_pool_CD.dtype} {list(v_pool_CD.shape)} and "
                f"queries_BQD {queries_BQD.dtype}; give pools of one shape in the dtype of the queries"
            )
        if not 0 <= layer < layers:
            raise ValueError(f"layer is {layer}; give 0 to {layers - 1}")
        if layers * self.num_slots * heads != pool[0]:
            raise ValueError(
                f"{layers} layers of {self.num_slots} slots and {heads} heads are not the pool's {pool[0]} cells; "
                "give the pool of all layers"
            )
