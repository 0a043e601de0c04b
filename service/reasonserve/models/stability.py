"""How much two measurements of a model's layers agree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation of two curves, -1 to 1; ties share their mean rank, and a flat curve gives 0."""
    ranks = [_ranks(np.asarray(curve, dtype=np.float64)) for curve in (first, second)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return 0.0
    return float(np.corrcoef(ranks)[0, 1])


def between_groups(curves: NDArray[np.float64], groups: Sequence[str]) -> list[float]:
    """Spearman's correlation between the mean curves of every two groups.

    Args:
        curves: One curve a row, [P, L].
        groups: Group of each row, [P]; with one group in all, each row is compared with the others.
    """
    names = list(groups) if len(set(groups)) > 1 else [str(row) for row in range(len(groups))]
    means = [curves[[group == name for group in names]].mean(axis=0) for name in dict.fromkeys(names)]
    return [spearman(first, second) for first, second in combinations(means, 2)]


def _ranks(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    below = (curve[:, None] > curve).sum(axis=1)
    level = (curve[:, None] == curve).sum(axis=1)
    ranks: NDArray[np.float64] = below + (level - 1) / 2
    return ranks
