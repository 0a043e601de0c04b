"""What competes in a request's round, collected from its row, its cell table and its query window."""

from __future__ import annotations

import torch

from reasonserve.engine.cells import CellLayout
from reasonserve.engine.requests import RequestState
from reasonserve.engine.rounds import RoundInput
from reasonserve.engine.tables import CellTables


def gather_candidates(
    state: RequestState,
    queries_LWQD: torch.Tensor,
    layout: CellLayout,
    tables: CellTables,
    slots_N: torch.Tensor,
    *,
    with_prompt: bool,
) -> RoundInput:
    """Collects a request's candidates in true-position order.

    A round keeps the first S slots past the pinned prefix and releases the others: the tail's, and those that the
    request owns beyond a lowered budget, whatever cells lie in them. With a raised budget the first tail slots
    become owned.

    Args:
        state: The request.
        queries_LWQD: Window queries after RoPE, oldest first.
        layout: The KV pool's.
        tables: Cell tables, which hold the request's row if it had a round.
        slots_N: The request's row up to its length.
        with_prompt: Whether the slots before the pinned prefix' end compete too; only before the first round.
    """
    pinned, budget, allocated = state.pinned_slots, state.budget_tokens, len(slots_N)
    if state.table_row < 0:
        start = 0 if with_prompt else pinned
        cells_LHN = layout.cell_ids(slots_N[start:])
        owned_LH = None
        lengths_LH = torch.full(cells_LHN.shape[:2], allocated - start, device=cells_LHN.device)
        index_N = torch.arange(start, allocated, device=cells_LHN.device)
        releasable_LHN = ((index_N < pinned) | (index_N >= pinned + budget)).expand(cells_LHN.shape)
    else:
        owned_LH = tables.owned[state.table_row]
        tail_LHT = layout.cell_ids(slots_N[pinned + state.owned_slots :])
        cells_LHN = _joined(tables.cells[state.table_row], owned_LH, tail_LHT)
        lengths_LH = owned_LH + tail_LHT.shape[-1]
        becomes_owned = max(0, budget - state.owned_slots)
        index_N = torch.arange(cells_LHN.shape[-1], device=cells_LHN.device)
        releasable_LHN = index_N >= owned_LH[..., None] + becomes_owned
        if budget < state.owned_slots:
            surplus_N = slots_N[pinned + budget : pinned + state.owned_slots].long()
            releasable_LHN |= torch.isin(layout.slots_of(cells_LHN), surplus_N)
    return RoundInput(
        queries_LWQD=queries_LWQD,
        cells_LHN=cells_LHN,
        lengths_LH=lengths_LH,
        releasable_LHN=releasable_LHN,
        budget=budget,
        owned_LH=owned_LH,
        statistic_LHK=state.statistic_LHK,
    )


def _joined(owned_LHK: torch.Tensor, lengths_LH: torch.Tensor, tail_LHT: torch.Tensor) -> torch.Tensor:
    """Puts each list's owned cells and the tail's together; padded with the tail's last."""
    tail = tail_LHT.shape[-1]
    index_N = torch.arange(int(lengths_LH.max()) + tail, device=owned_LHK.device)
    past_owned_LHN = index_N - lengths_LH[..., None]
    owned_LHN = owned_LHK[..., index_N.clamp(max=owned_LHK.shape[-1] - 1)]
    if tail == 0:
        return owned_LHN
    return torch.where(past_owned_LHN < 0, owned_LHN, tail_LHT.gather(-1, past_owned_LHN.clamp(0, tail - 1)))
