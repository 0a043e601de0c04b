"""Finds the split of a budget over layers that costs the model least, by measuring. Loads torch and transformers.

What a split costs, ``judge`` says; ``heads`` goes on within the layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from reasonalloc.centres import QueryCentres
from reasonalloc.methods import Triple
from reasonserve.engine.settings import EngineSettings
from reasonserve.errors import StartupError
from reasonserve.kv import MIN_BUDGET_TOKENS
from reasonserve.models.centres import measure_centres
from reasonserve.models.heads import measure_heads
from reasonserve.models.judge import LEAST_NATS, Judge, log_loss
from reasonserve.models.search import Found, search
from reasonserve.models.simulate import ATTENTION, Rounds
from reasonserve.models.traces import Probe, Tick, Trace, check_probes, generate, load, probes_digest

METHOD = Triple("wave", "reasonalloc", "rkv")
"""What splits are judged under; its layer rule takes the shares that are tried."""

_BUDGET_SHARES = (0.33, 0.5)
"""Budgets, of the traces' median length: rounds that hurt, and rounds that hardly do."""
_SMALLER = 2 / 3
"""Budgets at which a model loses too little are taken by so much smaller."""
_LEAST_LOSS = 3 * LEAST_NATS
"""What equal shares must lose at the larger budget, in nats per token, or chance would tell splits apart."""
_MAX_GROUPS = 8
_HELD_OUT = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensitivity:
    """What the search showed.

    Attributes:
        num_kv_heads: K.
        shares: Share of each layer, of the mean; their mean is 1. [L]
        rises: Rise of the loss's logarithm when a layer's group gave up half of its share. [L]
        evidence: Figures of the search.
        generated_tokens: Tokens that each probe generated, [P].
        probes_digest: SHA-256 of the probes, hexadecimal.
        queries: Centres of the queries before RoPE; None where the model has none.
        head_shares: Share of each kv head, of its layer's mean; empty where they were not measured. [L][K]
    """

    num_kv_heads: int
    shares: tuple[float, ...]
    rises: tuple[float, ...]
    evidence: dict[str, float]
    generated_tokens: tuple[int, ...]
    probes_digest: str
    queries: QueryCentres | None = None
    head_shares: tuple[tuple[float, ...], ...] = ()


def calibrate_sensitivity(
    folder: Path, probes: Sequence[Probe], num_tokens: int, evaluations: int, tick: Tick, method: Triple = METHOD
) -> Sensitivity:
    """Searches for the split on most probes, and checks it on the others.

    A split that does not lose less than equal shares on the probes that were held out is not believed: then the
    shares are equal.

    Args:
        folder: A model folder.
        probes: Prompts.
        num_tokens: Most tokens to generate for each.
        evaluations: Most splits to try.
        tick: Told the progress.
        method: Head rule and scorer to judge under.

    Raises:
        StartupError: Too few or too many probes, or a scorer that cannot be replayed.
    """
    check_probes(probes)
    model = load(folder, "sdpa", rounded=True)  # what a split costs shows above the rounding
    traces = generate(model, folder, probes, num_tokens, tick)
    queries = measure_centres(model, traces, tick)
    model.set_attn_implementation(ATTENTION)
    held_out = max(1, round(len(traces) * _HELD_OUT))
    judge, rounds = hard_enough(model, traces, len(traces) - held_out, method, queries)
    check = Judge(model, traces[-held_out:], rounds, method)
    num_layers, num_heads = model.config.num_hidden_layers, model.config.num_key_value_heads
    sizes = [len(group) for group in np.array_split(np.arange(num_layers), min(_MAX_GROUPS, num_layers))]
    found = _search(judge, sizes, evaluations, tick)
    shares, evidence = _checked(found, sizes, judge, check, rounds)
    heads = measure_heads(judge, check, shares, num_heads, method, rounds, evaluations, tick)
    return Sensitivity(
        num_kv_heads=num_heads,
        shares=shares,
        rises=tuple(np.repeat(found.rises, sizes).tolist()),
        evidence={f"under_{method.scorer}": 1.0} | evidence | (heads.evidence if heads else {}),
        generated_tokens=tuple(trace.output_tokens for trace in traces),
        probes_digest=probes_digest(probes),
        queries=queries,
        head_shares=heads.shares if heads else (),
    )


def _search(judge: Judge, sizes: Sequence[int], evaluations: int, tick: Tick) -> Found:
    done = 0

    def loss_of(shares: Sequence[float]) -> float:
        nonlocal done
        done += 1
        tick("Trying splits", done, evaluations)
        return log_loss(judge.divergences_of_shares(np.repeat(shares, sizes).tolist()))

    found = search(loss_of, sizes, evaluations)
    tick("Trying splits", evaluations, evaluations)
    return found


def hard_enough(
    model: Any, traces: Sequence[Trace], judged: int, method: Triple, queries: QueryCentres | None
) -> tuple[Judge, list[Rounds]]:
    """Returns a judge of the first traces, at the largest budgets at which equal shares lose enough to be told."""
    scale = 1.0
    while True:
        rounds = [_rounds(traces, scale * share, method, queries) for share in _BUDGET_SHARES]
        judge = Judge(model, traces[:judged], rounds, method)
        lost = judge.divergences_of_shares([1.0] * model.config.num_hidden_layers)
        if lost[-1] >= _LEAST_LOSS or rounds[0].budget_tokens == MIN_BUDGET_TOKENS:
            return judge, rounds
        scale *= _SMALLER


def _rounds(traces: Sequence[Trace], share: float, method: Triple, queries: QueryCentres | None) -> Rounds:
    budget = max(MIN_BUDGET_TOKENS, 8 * round(share * median(len(trace.tokens) for trace in traces) / 8))
    buffer = max(EngineSettings().window_tokens, budget // 12)
    try:
        return Rounds(method.scorer, budget, buffer, centres=queries)
    except ValueError as error:
        raise StartupError(f"No split can be judged under this scorer: {error}.") from error


def _checked(
    found: Found, sizes: Sequence[int], judge: Judge, check: Judge, rounds: Sequence[Rounds]
) -> tuple[tuple[float, ...], dict[str, float]]:
    """Shares of the layers, equal where the found ones do not hold on other probes; and the figures."""
    equal, shares = [1.0] * sum(sizes), np.repeat(found.shares, sizes).tolist()
    fit, held_out = ((part.divergences_of_shares(equal), part.divergences_of_shares(shares)) for part in (judge, check))
    evidence = {"evaluations": float(found.evaluations)}
    for place, these in enumerate(rounds):
        name = f"budget_{these.budget_tokens}"
        evidence[f"{name}_kl_uniform"], evidence[f"{name}_kl_found"] = fit[0][place], fit[1][place]
        evidence[f"{name}_kl_uniform_held_out"] = held_out[0][place]
        evidence[f"{name}_kl_found_held_out"] = held_out[1][place]
    holds = log_loss(held_out[1]) < log_loss(held_out[0])
    rounded = {name: round(value, 4) for name, value in evidence.items()}
    return tuple(shares if holds else equal), rounded
