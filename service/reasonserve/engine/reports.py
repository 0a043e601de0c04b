"""What a request's tokens tell the replica of its KV memory."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from reasonserve.kv import REPORT_KEY, RoundEvent

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req

    from reasonserve.engine.requests import RequestState
    from reasonserve.engine.rounds import RoundOutput


def attach(req: Req, token_index: int, held: int, state: RequestState) -> None:
    """Attaches counters, and the round since the last token, to an output token; SGLang carries them to the replica.

    Every token needs an entry from the first one on: SGLang slices the list by token.
    """
    if req.customized_info is None:
        req.customized_info = {}
    steps = req.customized_info.setdefault(REPORT_KEY, [])
    del steps[token_index:]
    steps.extend([None] * (token_index - len(steps)))
    figures = {"held": held, "peak": state.peak_slots, "squeezes": state.squeezes}
    if token_index == 0:
        figures["scheduled"] = time.time() - (time.perf_counter() - req.time_stats.forward_entry_time)
    steps.append(figures | {"round": None if state.event is None else asdict(state.event)})
    state.event = None


def round_event(
    output: RoundOutput, *, unix_time_s: float, output_tokens: int, evicted_cells: int, num_ranks: int, seconds: float
) -> RoundEvent:
    """Returns what a round did, in plain data.

    Every rank keeps and evicts as many cells as this one; how they lie over layers and heads is this rank's.
    """
    return RoundEvent(
        unix_time_s=unix_time_s,
        output_tokens=output_tokens,
        kept_cells=int(output.lengths_LH.sum()) * num_ranks,
        evicted_cells=evicted_cells * num_ranks,
        seconds=seconds,
        layer_budgets=tuple(output.lengths_LH.double().mean(-1).tolist()),
        head_min=int(output.lengths_LH.min()),
        head_max=int(output.lengths_LH.max()),
    )
