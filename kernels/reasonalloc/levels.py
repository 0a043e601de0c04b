"""The three choices of a method, each as one function: score, layer budgets, head counts.

Each takes the name of a scorer or rule (``reasonalloc.methods``) and works on one layer, or on rows of layers at once.
"""

import torch
from torch import Tensor

from reasonalloc.methods import HEAD_RULES, LAYER_RULES, check_name
from reasonalloc.methods import SCORERS as SCORER_NAMES
from reasonalloc.ops import budgets
from reasonalloc.ops.route import adakv_heads, one_pass_heads, route_heads, uniform_heads
from reasonalloc.profile import LayerProfile
from reasonalloc.rules import entropy_weights, pyramid_weights, shared_heads
from reasonalloc.scorers import SCORERS, Candidates, Centres, Scored


def score(
    scorer: str,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    lengths: Tensor | None = None,
    budget: int | None = None,
    statistic: Tensor | None = None,
    seed: int = 0,
    position: int | None = None,
    centres: Centres | None = None,
) -> Tensor:
    """Scores the candidates of one layer, or of rows of layers.

    Args:
        scorer: One of ``reasonalloc.methods.SCORERS``.
        queries: The newest queries after RoPE, ``[W, Hq, D]``, or ``[R, W, Hq, D]``.
        keys: ``[H, N, D]`` after RoPE in order of true position, or ``[R, H, N, D]``.
        values: Shaped like ``keys``.
        lengths: int64 candidates of each head, ``[H]`` or ``[R, H]``; all ``N`` by default.
        budget: Cells that a head keeps on average; half of ``N`` by default. Few scorers ask.
        statistic: The scorer's running statistic, shaped like the result; initial by default.
        seed: Of scorers that draw; row ``r`` draws with a seed of its own.
        position: True position of the next token; ``N`` by default, as where nothing is missing. Few scorers ask.
        centres: Where queries lie before RoPE, of as many rows; a calibrated scorer asks for it.

    Returns:
        float32 ``[H, N]`` or ``[R, H, N]``: ``+inf`` in the window, ``-inf`` on padding, finite elsewhere.

    Raises:
        MethodError: There is no such scorer.
        ValueError: Shapes, dtypes or ranges are wrong, or a calibrated scorer has no centres.
    """
    one_layer = keys.dim() == 3
    if one_layer:
        queries, keys, values = queries[None], keys[None], values[None]
        lengths = None if lengths is None else lengths[None]
        statistic = None if statistic is None else statistic[None]
    rows, heads, width, _ = keys.shape
    if lengths is None:
        lengths = torch.full((rows, heads), width, dtype=torch.int64, device=keys.device)
    candidates = Candidates(
        queries_RWQD=queries,
        keys_RHND=keys,
        values_RHND=values,
        lengths_RH=lengths,
        budget=width // 2 if budget is None else budget,
        statistic_RHN=statistic,
        seeds_R=torch.arange(rows, device=keys.device) + (seed << 16),
        positions_R=torch.full((rows,), width if position is None else position, device=keys.device),
        centres=centres,
    )
    scores_RHN = score_candidates(scorer, candidates).scores_RHN
    return scores_RHN[0] if one_layer else scores_RHN


def score_candidates(scorer: str, candidates: Candidates) -> Scored:
    """Scores candidates and brings the scorer's running statistic up to date.

    Args:
        scorer: One of ``reasonalloc.methods.SCORERS``.
        candidates: What to score; a missing statistic starts at its initial value.

    Raises:
        MethodError: There is no such scorer.
        ValueError: Shapes, dtypes or ranges are wrong, or a calibrated scorer has no centres.
    """
    check_name("scorer", scorer, SCORER_NAMES)
    if SCORERS[scorer].calibrated and candidates.centres is None:
        raise ValueError(f"the scorer {scorer} has no centres of the model's queries; give a profile's that holds them")
    statistic = SCORERS[scorer].statistic
    if statistic is not None and candidates.statistic_RHN is None:
        initial = torch.full(candidates.keys_RHND.shape[:3], statistic.initial, device=candidates.keys_RHND.device)
        candidates = candidates.with_statistic(initial)
    return SCORERS[scorer].score(candidates)


def route(
    head_rule: str,
    scores: Tensor,
    layer_budget: Tensor | int,
    *,
    lengths: Tensor | None = None,
    window: int = 8,
    power: float = 0.5,
    floor: float = 0.25,
    ceiling: float = 2.0,
    shares: Tensor | None = None,
) -> Tensor:
    """Splits the cells of one layer over its kv heads, or of rows of layers.

    Args:
        head_rule: One of ``reasonalloc.methods.HEAD_RULES``.
        scores: float32 ``[H, N]`` or ``[R, H, N]``, comparable over the heads of a layer.
        layer_budget: Cells of the layer, or int64 ``[R]``.
        lengths: int64 candidates of each head, ``[H]`` or ``[R, H]``; all ``N`` by default.
        window: Newest tokens that each head keeps.
        power, floor, ceiling: Constants of ``reasonalloc`` and ``one-pass``; ``reasonalloc.ops.route.route_heads`` says
            which. ``profile`` takes the bounds.
        shares: A profile's shares of the heads, ``[H]`` or ``[R, H]``; ``profile`` asks for them.

    Returns:
        int64 counts ``[H]`` or ``[R, H]`` that add up to the layer's budget.

    Raises:
        MethodError: There is no such rule.
        ValueError: Shapes, dtypes or ranges are wrong, or ``profile`` has no shares.
    """
    check_name("head rule", head_rule, HEAD_RULES)
    one_layer = scores.dim() == 2
    scores_RHN = scores[None] if one_layer else scores
    rows, heads, width = scores_RHN.shape
    if lengths is None:
        lengths_RH = torch.full((rows, heads), width, dtype=torch.int64, device=scores.device)
    else:
        lengths_RH = lengths[None] if one_layer else lengths
    budget_R = torch.as_tensor(layer_budget, dtype=torch.int64, device=scores.device).reshape(-1).expand(rows)
    if head_rule == "uniform":
        counts_RH = uniform_heads(lengths_RH, budget_R, min_cells=window)
    elif head_rule == "adakv":
        counts_RH = adakv_heads(scores_RHN, lengths_RH, budget_R)
    elif head_rule == "profile":
        if shares is None:
            raise ValueError("the head rule profile has no shares of the heads; give a profile's that holds them")
        shares_RH = shares.to(scores.device).expand(rows, heads)
        counts_RH = shared_heads(shares_RH, lengths_RH, budget_R, floor=floor, ceiling=ceiling, min_cells=2 * window)
    else:
        rule = route_heads if head_rule == "reasonalloc" else one_pass_heads
        counts_RH = rule(
            scores_RHN, lengths_RH, budget_R, power=power, floor=floor, ceiling=ceiling, min_cells=2 * window
        )
    return counts_RH[0] if one_layer else counts_RH


def layer_budgets(
    layer_rule: str,
    budget: int,
    profile: LayerProfile | None,
    *,
    num_layers: int | None = None,
    available: Tensor | None = None,
    window_cells: int = 0,
    scores: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """Splits a request's cells over the layers of its model.

    Args:
        layer_rule: One of ``reasonalloc.methods.LAYER_RULES``.
        budget: Cells of the request, over all layers and heads.
        profile: What the model's layers need; ``wave`` asks for it.
        num_layers: Layers of the model; the profile's by default.
        available: int64 ``[L]`` candidates of each layer, at least ``budget`` in all; no limit by default.
        window_cells: Cells of a layer that are kept in any case.
        scores: float32 ``[L, H, N]`` of this round; ``entropy`` asks for them.
        lengths: int64 ``[L, H]`` candidates of each head; all ``N`` by default.

    Returns:
        int64 ``[L]`` that adds up to ``budget``.

    Raises:
        MethodError: There is no such rule.
        ValueError: The rule needs a profile or scores and there are none, or the number of layers is not given.
    """
    check_name("layer rule", layer_rule, LAYER_RULES)
    if num_layers is None:
        num_layers = _require_profile(layer_rule, profile).num_layers
    if available is None:
        available = torch.full((num_layers,), budget, dtype=torch.int64)
    total_B = torch.tensor([budget], device=available.device)
    window_cells = min(window_cells, budget // num_layers)
    if layer_rule == "wave":
        profile = _require_profile(layer_rule, profile)
        weights_L = torch.tensor(profile.layer_weights(), device=available.device)
        least_B = torch.full_like(total_B, 2 * window_cells)
        bounds = {"floor": profile.floor, "ceiling": profile.ceiling}
        return budgets.layer_budgets(weights_L, total_B, available[None], least_B, **bounds)[0]
    weights_L = torch.ones(num_layers, dtype=torch.float64, device=available.device)
    if layer_rule == "pyramid":
        weights_L = pyramid_weights(num_layers).to(available.device)
    elif layer_rule == "entropy":
        if scores is None:
            raise ValueError("the layer rule entropy splits by scores and has none; give the scores of this round")
        if lengths is None:
            lengths = torch.full(scores.shape[:2], scores.shape[2], device=scores.device)
        weights_L = entropy_weights(scores, lengths)
    window_L = available.clamp(max=window_cells)
    free_B = total_B - window_L.sum()
    unbounded = {"floor": 0.0, "ceiling": float(num_layers)}
    free_BL = (available - window_L)[None]
    return budgets.layer_budgets(weights_L, free_B, free_BL, torch.zeros_like(free_B), **unbounded)[0] + window_L


def _require_profile(layer_rule: str, profile: LayerProfile | None) -> LayerProfile:
    if profile is None:
        raise ValueError(f"the layer rule {layer_rule} has no profile of the model; give one, or take another rule")
    return profile
