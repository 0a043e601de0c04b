"""Judgements on two outputs that should be the same: pure functions on tokens, logits and round records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from reasonserve.bench.exact.records import RoundRecord

DENSE_MARGIN = 1e-3
"""A divergence from stock is excused where stock's two best logits lie closer than this."""
RELATIVE_MARGIN = 1e-4
"""A divergence among neighbours is excused where what decided it was closer than this, relatively."""

Outcome = Literal["identical", "excused", "wrong"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One request's comparison.

    Attributes:
        request: Its id.
        outcome: ``excused`` is a tie that rounding broke the other way.
        first: First output token that differs; -1 where none does.
        margin: What decided there was this close; 0 where none differs.
        reason: ``logits`` or ``round``: what decided.
    """

    request: str
    outcome: Outcome
    first: int = -1
    margin: float = 0.0
    reason: str = ""


def first_difference(left: Sequence[int], right: Sequence[int]) -> int:
    """Returns the first index at which two outputs differ, the shorter one's end included; -1 where none does."""
    for n, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return n
    return -1 if len(left) == len(right) else min(len(left), len(right))


def against_stock(request: str, ours: Sequence[int], stock: Sequence[int], margins: Sequence[float]) -> Verdict:
    """Judges an output that no round touched.

    Args:
        request: Id.
        ours, stock: Output tokens.
        margins: Stock's best logit less its second best, per token.
    """
    first = first_difference(ours, stock)
    if first < 0:
        return Verdict(request, "identical")
    margin = margins[first]
    return Verdict(request, "excused" if margin < DENSE_MARGIN else "wrong", first, margin, "logits")


def among_neighbours(
    request: str,
    alone: Sequence[int],
    among: Sequence[int],
    records: tuple[Sequence[RoundRecord], Sequence[RoundRecord]],
    logits: torch.Tensor,
    prompt_tokens: int,
) -> Verdict:
    """Judges an output against the same request's in a crowd.

    Args:
        request: Id.
        alone, among: Output tokens.
        records: Rounds alone and among others.
        logits: The oracle's logits for ``alone`` under its rounds. [tokens, vocabulary]
        prompt_tokens: Length of the prompt.
    """
    first = first_difference(alone, among)
    if first < 0:
        return Verdict(request, "identical")
    for left, right in zip(*records, strict=False):
        if left.stored > prompt_tokens + first:
            break
        if (margin := cut_margin(left, right)) is not None:
            return Verdict(request, "excused" if margin < RELATIVE_MARGIN else "wrong", first, margin, "round")
    best = logits[first, [alone[first], among[first]]]
    margin = float((best[0] - best[1]).abs() / best.abs().max())
    return Verdict(request, "excused" if margin < RELATIVE_MARGIN else "wrong", first, margin, "logits")


def cut_margin(left: RoundRecord, right: RoundRecord) -> float | None:
    """Returns how close the choice was that two runs of a round made differently; None where they made the same.

    For each head whose kept tokens differ: the scores that changed sides, against the head's lowest kept
    score, relative to it; the widest of them counts.
    """
    widest: float | None = None
    for layer in range(len(left.kept_LH)):
        for head in range(len(left.kept_LH[layer])):
            positions, scores = left.positions_LH[layer][head], left.scores_LH[layer][head]
            kept = left.kept_LH[layer][head]
            changed = np.setxor1d(left.kept_positions(layer, head), right.kept_positions(layer, head))
            if len(changed) == 0:
                continue
            cut = float(scores[kept].min())
            gaps = np.abs(scores[np.isin(positions, changed)] - cut) / max(abs(cut), 1e-12)
            widest = max(widest or 0.0, float(gaps.max(initial=0.0)))
    return widest
