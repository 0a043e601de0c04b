"""Finds the split of each layer's cells over its kv heads that costs the model least. Loads torch and transformers.

Asked of each head is what the model loses when the head has fewer cells; the shares are static, as those of the layers
are, where ReasonAlloc's routing asks the scores in every round. Both are measured on the same probes, so that a
profile says which of them it found better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reasonalloc.methods import Triple
from reasonserve.models.judge import Judge, log_loss, trial_profile
from reasonserve.models.search import Found, search_heads
from reasonserve.models.simulate import Rounds
from reasonserve.models.traces import Tick

MAX_HEADS = 32
"""Most kv heads, over all layers, that are asked one by one: a search stays within minutes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSensitivity:
    """What the search showed.

    Attributes:
        shares: Share of each kv head, of its layer's mean. [L][H]
        evidence: Figures of the search: what each head's loss of half of its share cost, and divergences with equal
            shares and the found ones, on the probes of the search and on those held out.
    """

    shares: tuple[tuple[float, ...], ...]
    evidence: dict[str, float]


def measure_heads(
    judge: Judge,
    check: Judge,
    layer_shares: Sequence[float],
    num_heads: int,
    method: Triple,
    rounds: Sequence[Rounds],
    evaluations: int,
    tick: Tick,
) -> HeadSensitivity | None:
    """Searches for the heads' shares on some traces, at given shares of the layers, and checks them on others.

    Shares that do not lose less than equal ones on the held-out traces are not believed: then they are equal.

    Args:
        judge, check: Of the traces to search on, and of those held out.
        layer_shares: Shares of the layers.
        num_heads: Kv heads of a layer.
        method: What layers were judged under; its head rule gives way.
        rounds: The budgets.
        evaluations: Most splits to try.
        tick: Told the progress.

    Returns:
        None where there is one head a layer, or too many to ask one by one.
    """
    num_layers = len(layer_shares)
    if num_heads < 2 or num_layers * num_heads > MAX_HEADS:
        return None
    static = replace(method, head="profile")
    fit, held_out = judge.under(static), check.under(static)
    limit, done = max(evaluations, num_layers * num_heads + 1), 0

    def divergences(part: Judge, flat: Sequence[float]) -> list[float]:
        by_layer = [flat[first : first + num_heads] for first in range(0, len(flat), num_heads)]
        return part.divergences(trial_profile(layer_shares, num_heads, by_layer))

    def loss_of(flat: Sequence[float]) -> float:
        nonlocal done
        done += 1
        tick("Trying heads", done, limit)
        return log_loss(divergences(fit, flat))

    found = search_heads(loss_of, num_layers, num_heads, limit)
    tick("Trying heads", limit, limit)
    equal = (1.0,) * (num_layers * num_heads)
    measured = {
        f"{what}{suffix}": divergences(part, flat)
        for what, flat in (("equal", equal), ("found", found.shares))
        for suffix, part in (("", fit), ("_held_out", held_out))
    }
    holds = log_loss(measured["found_held_out"]) < log_loss(measured["equal_held_out"])
    shares = found.shares if holds else equal
    by_layer = (shares[first : first + num_heads] for first in range(0, len(shares), num_heads))
    return HeadSensitivity(shares=tuple(by_layer), evidence=_evidence(found, num_heads, measured, rounds))


def _evidence(
    found: Found, num_heads: int, measured: Mapping[str, Sequence[float]], rounds: Sequence[Rounds]
) -> dict[str, float]:
    evidence = {"head_evaluations": float(found.evaluations)}
    for place, rise in enumerate(found.rises):
        evidence[f"head_{place // num_heads}_{place % num_heads}_rise"] = round(rise, 4)
    for name, values in measured.items():
        for these, value in zip(rounds, values, strict=True):
            evidence[f"budget_{these.budget_tokens}_kl_heads_{name}"] = round(value, 4)
    return evidence
