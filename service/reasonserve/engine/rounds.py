"""One compression round of one request: score, route, keep, compact.

Pure on tensors: what is read and written is in the arguments, so a round can be tested without SGLang.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from reasonalloc.ops.budgets import layer_budgets
from reasonalloc.ops.compact import apply_moves, plan_compaction
from reasonalloc.ops.keep import keep_top
from reasonalloc.ops.route import route_heads, uniform_heads
from reasonalloc.ops.score import rkv_score
from reasonserve.engine.settings import EngineSettings
from reasonserve.kv import Method


@dataclass(frozen=True, slots=True)
class RoundInput:
    """What a round works on.

    Attributes:
        queries_LWQD: Window queries after RoPE, oldest first.
        cells_LHN: Candidate cells in true-position order, padded.
        lengths_LH: Candidates of each head.
        releasable_LHN: Candidates in slots that are given back after the round; their survivors move into holes.
        budget: S, slots owned after the round.
    """

    queries_LWQD: torch.Tensor
    cells_LHN: torch.Tensor
    lengths_LH: torch.Tensor
    releasable_LHN: torch.Tensor
    budget: int


@dataclass(frozen=True, slots=True)
class RoundOutput:
    """What a round decided and did.

    Attributes:
        cells_LHN: Owned cells in true-position order, padded.
        lengths_LH: Owned cells of each head; sums to S * L * H.
        scores_LHN: Scores of the candidates.
        keep_LHN: Candidates that were kept.
        candidates_LH: Candidates of each head.
    """

    cells_LHN: torch.Tensor
    lengths_LH: torch.Tensor
    scores_LHN: torch.Tensor
    keep_LHN: torch.Tensor
    candidates_LH: torch.Tensor


def head_budgets(
    method: Method,
    scores_LHN: torch.Tensor,
    lengths_LH: torch.Tensor,
    budget: int,
    layer_weights_L: torch.Tensor | None,
    settings: EngineSettings,
) -> torch.Tensor:
    """Splits a request's S * L * H cells over layers and kv heads.

    Args:
        method: ``reasonalloc`` (layers by profile, heads by pooled threshold) or ``r-kv`` (equal shares).
        scores_LHN: Scores of the candidates, comparable within a layer.
        lengths_LH: Candidates of each head.
        budget: S.
        layer_weights_L: Demand of each layer; required by ``reasonalloc``.
        settings: Constants.

    Returns:
        Cells that each head keeps; sums to S * L * H exactly. [L, H] int64
    """
    num_layers, num_kv_heads = lengths_LH.shape
    least = 2 * settings.window_tokens
    if method == "r-kv":
        per_layer_L = torch.full((num_layers,), budget * num_kv_heads, device=lengths_LH.device)
        return uniform_heads(lengths_LH, per_layer_L, min_cells=least)
    assert layer_weights_L is not None, "admission refuses reasonalloc without a profile"
    total_B = torch.tensor([budget * num_layers * num_kv_heads], device=lengths_LH.device)
    floor_B = torch.tensor([least * num_kv_heads], device=lengths_LH.device)
    per_layer_L = layer_budgets(layer_weights_L, total_B, lengths_LH.sum(-1)[None], floor_B)[0]
    return route_heads(
        scores_LHN,
        lengths_LH,
        per_layer_L,
        power=settings.head_power,
        floor=settings.head_floor,
        ceiling=settings.head_ceiling,
        min_cells=least,
    )


def run_round(
    method: Method,
    k_cells: torch.Tensor,
    v_cells: torch.Tensor,
    work: RoundInput,
    layer_weights_L: torch.Tensor | None,
    settings: EngineSettings,
) -> RoundOutput:
    """Keeps exactly S * L * H of a request's cells, all in slots that stay; the releasable slots are free after it.

    Args:
        method: ``reasonalloc`` or ``r-kv``.
        k_cells, v_cells: The pools by cell id; survivors in releasable slots are copied into holes. [cells, D]
        work: The request's candidates.
        layer_weights_L: Demand of each layer; required by ``reasonalloc``.
        settings: Constants.
    """
    scores_LHN = rkv_score(
        work.queries_LWQD,
        k_cells[work.cells_LHN],
        work.lengths_LH,
        window=settings.window_tokens,
        mix=settings.score_mix,
    )
    counts_LH = head_budgets(method, scores_LHN, work.lengths_LH, work.budget, layer_weights_L, settings)
    keep_LHN = keep_top(scores_LHN, work.lengths_LH, counts_LH)
    one_request_L = torch.zeros(work.lengths_LH.shape[0], dtype=torch.int64, device=work.lengths_LH.device)
    plan = plan_compaction(work.cells_LHN, work.lengths_LH, keep_LHN, work.releasable_LHN, one_request_L, 1)
    apply_moves(k_cells, plan.src_M, plan.dst_M)
    apply_moves(v_cells, plan.src_M, plan.dst_M)
    return RoundOutput(
        cells_LHN=plan.cells_RHK,
        lengths_LH=plan.lengths_RH,
        scores_LHN=scores_LHN,
        keep_LHN=keep_LHN,
        candidates_LH=work.lengths_LH,
    )
