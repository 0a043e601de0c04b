"""A small search for shares of a budget that lose least. Pure: what a split loses is asked of a function.

Letters: G groups, whose shares are found; L layers of H heads, whose shares of their layer are found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

LEAST, MOST = 0.3, 1.9
"""Bounds of a share, of the mean; inside those of a profile, so that these never bind."""

_TAKEN = 0.5
_PULLS = (0.15, 0.3, 0.6)
_STEPS = (0.3, 0.15)

Shares = tuple[float, ...]
Loss = Callable[[Shares], float]


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        shares: Share of each group, of the mean; weighted by the groups' sizes their mean is 1. [G]
        loss: What it loses.
        uniform_loss: What equal shares lose.
        rises: How much more is lost when one group alone gives up half of its share to the others. [G]
        evaluations: Splits that were tried.
    """

    shares: Shares
    loss: float
    uniform_loss: float
    rises: tuple[float, ...]
    evaluations: int


@dataclass(slots=True)
class _Climb:
    """The best split so far, and what may still be tried."""

    loss_of: Loss
    limit: int
    tried: dict[Shares, float] = field(default_factory=dict)
    best: Shares = ()

    def lowers(self, shares: Shares) -> bool:
        """Tries a split; True where it loses less than the best, which it then is."""
        if shares in self.tried or self.spent or not all(LEAST <= share <= MOST for share in shares):
            return False
        self.tried[shares] = self.loss_of(shares)
        if self.best and self.tried[shares] >= self.tried[self.best]:
            return False
        self.best = shares
        return True

    @property
    def spent(self) -> bool:
        return len(self.tried) >= self.limit


def search(loss_of: Loss, sizes: Sequence[int], limit: int) -> Found:
    """Looks for shares that lose less than equal ones.

    First each group in turn gives up half of its share; then all shares are pulled towards the groups that this
    hurt most, by three strengths; then groups give to one another, those that were hurt least first, for as long as
    it helps. Deterministic.

    Args:
        loss_of: What a split loses; asked at most ``limit`` times.
        sizes: Members of each group. [G]
        limit: At least G + 1.
    """
    equal = (1.0,) * len(sizes)
    climb = _Climb(loss_of, limit)
    climb.lowers(equal)
    uniform_loss = climb.tried[equal]
    rises = []
    for group in range(len(sizes)):
        shares = _give(equal, sizes, group, None, _TAKEN)
        climb.lowers(shares)
        rises.append(climb.tried.get(shares, uniform_loss) - uniform_loss)
    for pull in _PULLS:
        climb.lowers(_pulled(rises, sizes, pull))
    order = sorted(range(len(sizes)), key=lambda group: rises[group])
    pairs = [(giver, taker) for giver in order for taker in reversed(order) if giver != taker]
    for step in _STEPS:
        while sum(climb.lowers(_give(climb.best, sizes, *pair, step)) for pair in pairs) and not climb.spent:
            pass
    return Found(climb.best, climb.tried[climb.best], uniform_loss, tuple(rises), len(climb.tried))


def search_heads(loss_of: Loss, num_layers: int, num_heads: int, limit: int) -> Found:
    """Looks for shares of each layer's heads that lose less than equal ones.

    Likewise as ``search``, but what a head gives up goes to heads of its own layer. Deterministic.

    Args:
        loss_of: What shares lose, layer after layer; asked at most ``limit`` times. [L * H]
        num_layers: L.
        num_heads: H, at least 2.
        limit: At least L * H + 1.

    Returns:
        Shares and rises, layer after layer; the mean of a layer's shares is 1. [L * H]
    """
    equal = (1.0,) * (num_layers * num_heads)
    layers = [range(first, first + num_heads) for first in range(0, len(equal), num_heads)]
    climb = _Climb(loss_of, limit)
    climb.lowers(equal)
    uniform_loss = climb.tried[equal]
    rises = []
    others = [(giver, [head for head in layer if head != giver]) for layer in layers for giver in layer]
    for giver, takers in others:
        shares = _moved(equal, giver, takers, _TAKEN)
        climb.lowers(shares)
        rises.append(climb.tried.get(shares, uniform_loss) - uniform_loss)
    for pull in _PULLS:
        parts = (_pulled([rises[head] for head in layer], [1] * num_heads, pull) for layer in layers)
        climb.lowers(tuple(share for part in parts for share in part))
    pairs = [(giver, taker) for giver, takers in others for taker in takers]
    pairs.sort(key=lambda pair: rises[pair[0]] - rises[pair[1]])
    for step in _STEPS:
        while sum(climb.lowers(_moved(climb.best, giver, [taker], step)) for giver, taker in pairs) and not climb.spent:
            pass
    return Found(climb.best, climb.tried[climb.best], uniform_loss, tuple(rises), len(climb.tried))


def _moved(shares: Shares, giver: int, takers: Sequence[int], step: float) -> Shares:
    """One share gives up ``step``, evenly to others."""
    moved = list(shares)
    moved[giver] -= step
    for taker in takers:
        moved[taker] += step / len(takers)
    return tuple(round(share, 6) for share in moved)


def _give(shares: Shares, sizes: Sequence[int], giver: int, taker: int | None, step: float) -> Shares:
    """One group's members give up ``step`` of the mean each, to another group or evenly to all others."""
    takers = [taker] if taker is not None else [group for group in range(len(sizes)) if group != giver]
    given = step * sizes[giver] / max(1, sum(sizes[group] for group in takers))
    moved = list(shares)
    moved[giver] -= step
    for group in takers:
        moved[group] += given
    return tuple(round(share, 6) for share in moved)


def _pulled(rises: Sequence[float], sizes: Sequence[int], pull: float) -> Shares:
    """Shares that grow with what a group's loss cost, relative to the others."""
    mean = math.fsum(rises) / len(rises)
    spread = math.sqrt(math.fsum((rise - mean) ** 2 for rise in rises) / len(rises)) or 1.0
    raw = [math.exp(pull * (rise - mean) / spread) for rise in rises]
    total = math.fsum(share * size for share, size in zip(raw, sizes, strict=True)) / sum(sizes)
    return tuple(round(share / total, 6) for share in raw)
