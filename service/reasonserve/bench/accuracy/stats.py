"""Paired statistics of two methods on the same questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
_SEED = 20260131


@dataclass(frozen=True, slots=True)
class Paired:
    """How one method compares with another.

    Attributes:
        only_first: Questions that only the first got right.
        only_second: Questions that only the second got right.
        p_value: Exact McNemar test, two-sided.
        difference: First less second, of the mean.
        low, high: Its 95% bootstrap interval over questions.
    """

    only_first: int
    only_second: int
    p_value: float
    difference: float
    low: float
    high: float


def mcnemar(only_first: int, only_second: int) -> float:
    """Returns the two-sided p-value of the exact McNemar test: is a coin fair that fell so often on each side?"""
    total, fewer = only_first + only_second, min(only_first, only_second)
    tail = math.fsum(math.comb(total, k) for k in range(fewer + 1)) / float(2**total)
    return min(1.0, 2.0 * tail)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the 95% percentile bootstrap interval of a mean, with a fixed seed."""
    sample = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(_SEED).integers(len(sample), size=(RESAMPLES, len(sample)))
    low, high = np.quantile(sample[draws].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def compare(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Compares two methods on the same questions in the same order.

    Args:
        first, second: 1 where the answer is right, else 0.

    Raises:
        ValueError: They are not as many.
    """
    pairs = list(zip(first, second, strict=True))
    only_first = sum(a > b for a, b in pairs)
    only_second = sum(b > a for a, b in pairs)
    differences = [a - b for a, b in pairs]
    low, high = interval(differences)
    mean = math.fsum(differences) / len(differences)
    return Paired(only_first, only_second, mcnemar(only_first, only_second), mean, low, high)
