"""One compression round of one request: score, route, keep, compact.

Pure on tensors: what is read and written is in the arguments, so a round can be tested without SGLang.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from reasonalloc.ops import launch
from reasonalloc.ops.compact import apply_moves, compact_cells, plan_compaction
from reasonalloc.ops.keep import keep_top
from reasonalloc.ops.redundancy import mean_cosine
from reasonalloc.profile import LayerProfile
from reasonalloc.scorers import SCORERS, Candidates, Centres, Scorer
from reasonserve.engine.methods import pack_kept, score_cells, split_budget, triple_in_force
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
        seed: What a scorer draws by; the same draws for the same request at the same length, in any batch.
        owned_LH: Leading candidates of each head that the last round kept; None in a first round.
        statistic_LHK: The scorer's running statistic of these; None in a first round or where it has none.
        position: True position of the next token.
        centres: The profile's centres of this rank's query heads; None where it has none.
        first_head: The model's kv head that is this rank's first.
    """

    queries_LWQD: torch.Tensor
    cells_LHN: torch.Tensor
    lengths_LH: torch.Tensor
    releasable_LHN: torch.Tensor
    budget: int
    seed: int = 0
    owned_LH: torch.Tensor | None = None
    statistic_LHK: torch.Tensor | None = None
    position: int = 0
    centres: Centres | None = None
    first_head: int = 0


@dataclass(frozen=True, slots=True)
class RoundOutput:
    """What a round decided and did.

    Attributes:
        cells_LHN: Owned cells in true-position order, padded.
        lengths_LH: Owned cells of each head; sums to S * L * H.
        scores_LHN: Scores of the candidates.
        keep_LHN: Candidates that were kept.
        candidates_LH: Candidates of each head.
        statistic_LHN: The scorer's running statistic of ``cells_LHN``; None where it has none.
    """

    cells_LHN: torch.Tensor
    lengths_LH: torch.Tensor
    scores_LHN: torch.Tensor
    keep_LHN: torch.Tensor
    candidates_LH: torch.Tensor
    statistic_LHN: torch.Tensor | None = None


def run_round(
    method: Method,
    k_cells: torch.Tensor,
    v_cells: torch.Tensor,
    work: RoundInput,
    profile: LayerProfile | None,
    settings: EngineSettings,
) -> RoundOutput:
    """Keeps exactly S * L * H of a request's cells, all in slots that stay; the releasable slots are free after it.

    Args:
        method: Any but ``full``.
        k_cells, v_cells: The pools by cell id; survivors in releasable slots are copied into holes. [cells, D]
        work: The request's candidates.
        profile: What the model's layers need; required by methods that split layers by it.
        settings: Constants.
    """
    triple = triple_in_force(method)
    candidates = _candidates(SCORERS[triple.scorer], k_cells, v_cells, work)
    scored = score_cells(triple, candidates, work.statistic_LHK, work.owned_LH)
    counts_LH = split_budget(
        triple, scored.scores_RHN, work.lengths_LH, work.budget, profile, settings, work.first_head
    )
    keep_LHN = keep_top(scored.scores_RHN, work.lengths_LH, counts_LH)
    cells_LHN, kept_LH = _compact(k_cells, v_cells, work, keep_LHN)
    statistic_LHN = scored.statistic_RHN
    if statistic_LHN is not None:
        statistic_LHN = pack_kept(statistic_LHN, keep_LHN, kept_LH, cells_LHN.shape[2])
    return RoundOutput(
        cells_LHN=cells_LHN,
        lengths_LH=kept_LH,
        scores_LHN=scored.scores_RHN,
        keep_LHN=keep_LHN,
        candidates_LH=work.lengths_LH,
        statistic_LHN=statistic_LHN,
    )


def compile_rounds(k_cells: torch.Tensor) -> None:
    """Compiles what a round on a CPU runs compiled, so that no request waits for it.

    Args:
        k_cells: The pool of keys. [cells, D]
    """
    if not launch.use_kernel(k_cells.device):
        mean_cosine(k_cells[None, None, :1], torch.ones((1, 1), dtype=torch.int64))


def _candidates(scorer: Scorer, k_cells: torch.Tensor, v_cells: torch.Tensor, work: RoundInput) -> Candidates:
    layers_L = torch.arange(len(work.lengths_LH), device=work.lengths_LH.device)
    return Candidates(
        queries_RWQD=work.queries_LWQD,
        keys_RHND=k_cells[work.cells_LHN],
        values_RHND=v_cells[work.cells_LHN] if scorer.reads_values else None,
        lengths_RH=work.lengths_LH,
        budget=work.budget,
        seeds_R=layers_L + (work.seed << 16),
        positions_R=torch.full_like(layers_L, work.position),
        centres=work.centres,
    )


def _compact(
    k_cells: torch.Tensor, v_cells: torch.Tensor, work: RoundInput, keep_LHN: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Moves survivors into holes; returns the owned cells, padded, and the number of each list.

    Raises:
        ValueError: There are not as many holes as survivors to move, which would leave cells in released slots.
    """
    lists = work.cells_LHN, work.lengths_LH, keep_LHN, work.releasable_LHN
    request_L = work.lengths_LH.new_zeros(len(work.lengths_LH))
    if not launch.use_kernel(k_cells.device):
        plan = plan_compaction(*lists, request_L, 1)
        apply_moves(k_cells, plan.src_M, plan.dst_M)
        apply_moves(v_cells, plan.src_M, plan.dst_M)
        return plan.cells_RHK, plan.lengths_RH
    done = compact_cells(k_cells, v_cells, *lists, request_L, 1)
    if unmatched := int(done.unmatched_B):
        raise ValueError(f"a round kept {unmatched} cells more than its request's remaining slots have")
    return done.cells_RHN, done.lengths_RH
