"""Every scorer by its formula, one head at a time."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reasonalloc.ops.observe import reference as observe
from reasonalloc.ops.redundancy.reference import mean_cosine_of_list
from reasonalloc.scorers.base import Candidates, Centres, Scored

_GOLDEN, _MASK = 0x9E3779B97F4A7C15, 2**64 - 1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HeadCandidates:
    """One kv head: its queries ``[W, G, D]``, keys and values ``[N, D]`` without padding, and the rest."""

    queries_WGD: Tensor
    keys_ND: Tensor
    values_ND: Tensor
    budget: int
    statistic_N: Tensor
    draws_N: list[float]
    centres: Centres | None
    position: int

    def attention(self, num_queries: int | None, window: int, scope: str, group: str) -> Tensor:
        """Mean attention of the newest queries, all of them if None, on each candidate."""
        queries_WGD = self.queries_WGD if num_queries is None else self.queries_WGD[-num_queries:]
        lengths, keys = torch.tensor([[len(self.keys_ND)]]), self.keys_ND[None, None]
        return observe.window_attention(queries_WGD[None], keys, lengths, window=window, scope=scope, group=group)[0, 0]

    def redundancy(self, spare_first: bool = False) -> Tensor:
        """Softmax of mean cosines at threshold 0.5."""
        return mean_cosine_of_list(self.keys_ND, 0.5, spare_first).softmax(dim=0)


def rkv(head: HeadCandidates, past: int) -> tuple[Tensor, Tensor]:
    """Length-free, lambda 0.1."""
    importance = pooled(head.attention(8, 8, "past", "max_logit")[:past], 7, max)
    return past * (0.1 * importance - 0.9 * head.redundancy()[:past]), head.statistic_N


def rkv_released(head: HeadCandidates, past: int) -> tuple[Tensor, Tensor]:
    """As in the authors' code, lambda 0.07."""
    importance = pooled(head.attention(8, 8, "past", "max_logit")[:past], 7, max)
    return 0.07 * importance - 0.93 * head.redundancy(spare_first=True)[:past], head.statistic_N


def snapkv(head: HeadCandidates, past: int) -> tuple[Tensor, Tensor]:
    """Length-free importance."""
    return past * pooled(head.attention(8, 8, "past", "max_logit")[:past], 7, max), head.statistic_N


def gkv(head: HeadCandidates, past: int) -> tuple[Tensor, Tensor]:
    """The greater of old, decayed, and new attention, against redundancy."""
    attention, redundancy = head.attention(16, 16, "causal", "max")[:past], head.redundancy()[:past]
    statistic = head.statistic_N.clone()
    statistic[:past] = torch.maximum(0.8 * statistic[:past], attention / attention.max())
    return 0.5 * statistic[:past] - 0.5 * redundancy / redundancy.max(), statistic


def vase(head: HeadCandidates, past: int) -> tuple[Tensor, Tensor]:
    """Tiers: four sinks, large ranges, Gumbel draws."""
    weights = head.attention(16, 16, "past", "mean").tolist()[:past]
    smooth = [math.fsum(weights[max(at - 2, 0) : at + 3]) / 5 for at in range(past)]
    ranges = (head.values_ND.amax(dim=1) - head.values_ND.amin(dim=1))[:past].tolist()
    order = sorted(range(past), key=lambda at: (math.inf if at < 4 else ranges[at], at), reverse=True)
    large = set(order[: head.budget // 4])
    scores = [
        (200 if at < 4 else 100) + ranges[at] / (1 + ranges[at])
        if at in large
        else math.log(max(smooth[at], 1.1754944e-38)) - math.log(-math.log(head.draws_N[at]))
        for at in range(past)
    ]
    return torch.tensor(scores), head.statistic_N


def lava(head: HeadCandidates, past: int) -> tuple[Tensor, Tensor]:
    """Pooled attention times the largest L1 norm of a past value."""
    attention = pooled(head.attention(16, 16, "causal", "max_of_means")[:past], 7, max)
    return attention * head.values_ND[:past].abs().sum(dim=1).max(), head.statistic_N


def h2o(head: HeadCandidates, past: int) -> tuple[Tensor, Tensor]:
    """Attention received from all captured queries; the newer half of the budget above it."""
    statistic = head.statistic_N + len(head.queries_WGD) * head.attention(None, 8, "causal", "mean")
    first_recent = max(len(head.keys_ND) - head.budget // 2, 0)
    recent = [1e6 + at if at >= first_recent else float(statistic[at]) for at in range(past)]
    return torch.tensor(recent), statistic


def streaming(head: HeadCandidates, past: int) -> tuple[Tensor, Tensor]:
    """Four sinks, then the newest."""
    return torch.tensor([1e9 if at < 4 else float(at) for at in range(past)]), head.statistic_N


def random(head: HeadCandidates, past: int) -> tuple[Tensor, Tensor]:
    """Draws."""
    return torch.tensor(head.draws_N[:past]), head.statistic_N


def knorm(head: HeadCandidates, past: int) -> tuple[Tensor, Tensor]:
    """Negated norms."""
    return -head.keys_ND[:past].square().sum(dim=1).sqrt(), head.statistic_N


def triattention(head: HeadCandidates, past: int) -> tuple[Tensor, Tensor]:
    """The series of cosines as it is published, pair by pair; of its query heads the greatest."""
    assert head.centres is not None, "a calibrated scorer has centres"
    keys_NF = _pairs(head.keys_ND[:past])
    ahead_O11 = torch.tensor([2.0**power for power in range(17)], dtype=torch.float64)[:, None, None]
    best_N = torch.full((past,), -math.inf, dtype=torch.float64)
    for centre_F, spread_F in zip(_pairs(head.centres.centres_RQD[0]), head.centres.spreads_RQF[0], strict=True):
        angles_ONF = head.centres.frequencies_F * (head.position + ahead_O11) + centre_F.angle() - keys_NF.angle()
        series_N = (centre_F.abs() * keys_NF.abs() * angles_ONF.cos()).sum(dim=2).mean(dim=0)
        raw_N = series_N + (spread_F * keys_NF.abs()).sum(dim=1)
        deviation = raw_N.std(correction=0).clamp(min=1e-6)
        best_N = torch.maximum(best_N, (raw_N - raw_N.mean()) / deviation)
    return best_N.float(), head.statistic_N


def _pairs(vectors_ND: Tensor) -> Tensor:
    """Halves of vectors as complex numbers, ``[N, F]``."""
    return torch.complex(*vectors_ND.double().chunk(2, dim=1))


Formula = Callable[[HeadCandidates, int], tuple[Tensor, Tensor]]
FORMULAS: dict[str, tuple[Formula, int]] = {
    "rkv": (rkv, 8),
    "rkv-released": (rkv_released, 8),
    "snapkv": (snapkv, 8),
    "gkv": (gkv, 16),
    "vase": (vase, 16),
    "lava": (lava, 16),
    "h2o": (h2o, 8),
    "streaming": (streaming, 8),
    "random": (random, 8),
    "knorm": (knorm, 8),
    "triattention": (triattention, 8),
}
"""Formula and window of each scorer."""


def score(name: str, candidates: Candidates) -> Scored:
    """Scores and statistic of every head; the statistic is made up where none is given."""
    formula, window = FORMULAS[name]
    rows, heads, width, _ = candidates.keys_RHND.shape
    scores_RHN = torch.full((rows, heads, width), -math.inf)
    statistic_RHN = torch.zeros(rows, heads, width)
    if candidates.statistic_RHN is not None:
        statistic_RHN = candidates.statistic_RHN.clone()
    for row in range(rows):
        for head in range(heads):
            length = int(candidates.lengths_RH[row, head])
            past = max(length - window, 0)
            scores_RHN[row, head, past:length] = math.inf
            if length:
                given = _head(candidates, statistic_RHN, row, head, length)
                # A list that is all window has nothing to score, but what it got of attention still counts.
                scores, statistic = (
                    formula(given, past) if past or name == "h2o" else (torch.zeros(0), given.statistic_N)
                )
                scores_RHN[row, head, :past], statistic_RHN[row, head, :length] = scores, statistic
    return Scored(scores_RHN=scores_RHN, statistic_RHN=statistic_RHN)


def _head(candidates: Candidates, statistic_RHN: Tensor, row: int, head: int, length: int) -> HeadCandidates:
    c = candidates
    group = c.queries_RWQD.shape[2] // c.keys_RHND.shape[1]
    values_ND = c.keys_RHND[row, head] if c.values_RHND is None else c.values_RHND[row, head]
    seed = 0 if c.seeds_R is None else int(c.seeds_R[row])
    centres, mine = c.centres, slice(head * group, (head + 1) * group)
    if centres is not None:
        centres = Centres(
            frequencies_F=centres.frequencies_F,
            centres_RQD=centres.centres_RQD[row : row + 1, mine],
            spreads_RQF=centres.spreads_RQF[row : row + 1, mine],
        )
    return HeadCandidates(
        queries_WGD=c.queries_RWQD[row, :, mine].float(),
        keys_ND=c.keys_RHND[row, head, :length].float(),
        values_ND=values_ND[:length].float(),
        budget=c.budget,
        statistic_N=statistic_RHN[row, head, :length],
        draws_N=[draw(seed, head, place) for place in range(length)],
        centres=centres,
        position=0 if c.positions_R is None else int(c.positions_R[row]),
    )


def draw(seed: int, head: int, place: int) -> float:
    """See ``reasonalloc.draws.uniform``."""
    key = _mixed(seed * _GOLDEN & _MASK)
    bits = _mixed((key + ((head << 32) + place + 1) * _GOLDEN) & _MASK)
    return ((bits >> 41) + 0.5) / 2**23


def _mixed(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


def pooled(values_N: Tensor, width: int, reduce: Callable[[list[float]], float]) -> Tensor:
    """Each value's neighbourhood, reduced."""
    values, reach = values_N.tolist(), width // 2
    return torch.tensor([reduce(values[max(at - reach, 0) : at + reach + 1]) for at in range(len(values))])
