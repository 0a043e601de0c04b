"""A request's method at work: what its scorer sees, who gets how many cells, and what its statistic becomes.

Pure on tensors. The running statistic of a scorer belongs to ``RequestState``: it starts with the first round, lies
in the order of the request's cell table, and ends with that table.
"""

from __future__ import annotations

import torch

from reasonalloc import levels
from reasonalloc.methods import PROFILE_PARTS, Triple
from reasonalloc.profile import LayerProfile
from reasonalloc.scorers import SCORERS, Candidates, Scored, Scorer
from reasonalloc.shapes import valid_mask
from reasonserve.engine.settings import EngineSettings
from reasonserve.kv import KvRequest, Method, offered_methods, triple_of


def check_satisfiable(kv: KvRequest, profile: LayerProfile | None) -> None:
    """Checks that this engine can honour a request's method.

    Raises:
        ValueError: It needs a layer profile and there is none; says what to do.
    """
    triple = triple_of(kv.method)
    held = profile.parts if profile else frozenset()
    if triple is None or triple.profile_parts <= held:
        return
    offered = ", ".join(offered_methods(held))
    if profile is None:
        raise ValueError(
            f"kv.method is {kv.method!r}, which goes by a profile, and no layer profile is loaded; activate one, or "
            f"use one of {offered}."
        )
    lacking = " and ".join(PROFILE_PARTS[part] for part in sorted(triple.profile_parts - held))
    raise ValueError(
        f"kv.method is {kv.method!r}, which goes by {lacking}, and the active profile {profile.profile_id} holds none; "
        f"activate one that was calibrated with them, or use one of {offered}."
    )


def triple_in_force(method: Method) -> Triple:
    """Returns the choices of a method that has rounds.

    Raises:
        ValueError: ``full`` has none.
    """
    triple = triple_of(method)
    if triple is None:
        raise ValueError("kv.method is 'full', which keeps every cell; a round needs another method.")
    return triple


def score_cells(
    triple: Triple,
    candidates: Candidates,
    previous_LHK: torch.Tensor | None,
    owned_LH: torch.Tensor | None,
) -> Scored:
    """Scores a request's candidates.

    Args:
        triple: The request's choices.
        candidates: What competes, without a statistic.
        previous_LHK: Statistic of the owned cells, as the last round left it; None in a first round.
        owned_LH: Owned cells of each head; the candidates begin with these.
    """
    scorer: Scorer = SCORERS[triple.scorer]
    if scorer.statistic is None:
        return levels.score_candidates(triple.scorer, candidates)
    lengths_LH = candidates.lengths_RH
    width = candidates.keys_RHND.shape[2]
    statistic_LHN = lengths_LH.new_full((*lengths_LH.shape, width), 0, dtype=torch.float32)
    statistic_LHN += scorer.statistic.initial
    if previous_LHK is not None and owned_LH is not None:
        owned_LHK = valid_mask(owned_LH, previous_LHK.shape[2])
        known_LHK = statistic_LHN[:, :, : previous_LHK.shape[2]]
        known_LHK.copy_(torch.where(owned_LHK, previous_LHK, known_LHK))
    return levels.score_candidates(triple.scorer, candidates.with_statistic(statistic_LHN))


def split_budget(
    triple: Triple,
    scores_LHN: torch.Tensor,
    lengths_LH: torch.Tensor,
    budget: int,
    profile: LayerProfile | None,
    settings: EngineSettings,
    first_head: int = 0,
) -> torch.Tensor:
    """Splits a request's S * L * H cells over layers and kv heads.

    Args:
        triple: The request's choices.
        scores_LHN: Scores of the candidates, comparable within a layer.
        lengths_LH: Candidates of each head.
        budget: S.
        profile: What the model's layers and heads need, where a rule asks for it.
        settings: Constants.
        first_head: The model's kv head that is the first of ``lengths_LH``.

    Returns:
        Cells that each head keeps; sums to S * L * H exactly. [L, H] int64
    """
    num_layers, num_kv_heads = lengths_LH.shape
    window = SCORERS[triple.scorer].window
    layer_L = levels.layer_budgets(
        triple.layer,
        budget * num_layers * num_kv_heads,
        profile,
        num_layers=num_layers,
        available=lengths_LH.sum(-1),
        window_cells=window * num_kv_heads,
        scores=scores_LHN,
        lengths=lengths_LH,
    )
    return levels.route(
        triple.head,
        scores_LHN,
        layer_L,
        lengths=lengths_LH,
        window=window,
        power=settings.head_power,
        floor=settings.head_floor,
        ceiling=settings.head_ceiling,
        shares=_head_shares(profile, first_head, num_kv_heads) if triple.head == "profile" else None,
    )


def _head_shares(profile: LayerProfile | None, first_head: int, num_kv_heads: int) -> torch.Tensor | None:
    if profile is None or not profile.head_shares:
        return None
    return torch.tensor(profile.head_shares)[:, first_head : first_head + num_kv_heads]


def pack_kept(values_LHN: torch.Tensor, keep_LHN: torch.Tensor, kept_LH: torch.Tensor, width: int) -> torch.Tensor:
    """Returns the values of the kept candidates, in their order, padded with 0; what compaction does to the cells.

    Args:
        values_LHN: One value per candidate.
        keep_LHN: Candidates that were kept.
        kept_LH: Their number in each head.
        width: Width of the result, at least the longest list.
    """
    packed_LHK = values_LHN.new_zeros(*kept_LH.shape, width)
    return packed_LHK.masked_scatter_(valid_mask(kept_LH, width), values_LHN[keep_LHN])
