"""What a scorer is: a pure function from candidates to scores, and what it needs, as data."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reasonalloc.centres import NUMBERS, QueryCentres
from reasonalloc.shapes import valid_mask


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Centres:
    """``QueryCentres`` as tensors, of the query heads at hand. F is half of a head's width.

    Attributes:
        frequencies_F: float64 angle per token.
        centres_RQD: float32 mean query before RoPE, real parts before imaginary ones.
        spreads_RQF: float32 mean length of the queries' pairs, less the length of their mean.
    """

    frequencies_F: Tensor
    centres_RQD: Tensor
    spreads_RQF: Tensor

    @classmethod
    def of(cls, queries: QueryCentres, *, first: int = 0, count: int | None = None, device: str = "cpu") -> "Centres":
        """Unpacks a profile's; each layer is a row.

        Args:
            queries: What the profile holds.
            first: First query head, where a rank has some of them.
            count: Query heads; all from the first on by default.
            device: Where the tensors lie.
        """
        shape = queries.num_layers, queries.num_heads, NUMBERS, len(queries.frequencies)
        numbers = torch.frombuffer(bytearray(queries.content()), dtype=torch.float16).view(shape)
        here = numbers[:, first : None if count is None else first + count].float().to(device)
        return cls(
            frequencies_F=torch.tensor(queries.frequencies, dtype=torch.float64, device=device),
            centres_RQD=here[:, :, :2].flatten(2),
            spreads_RQF=here[:, :, 2],
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Candidates:
    """What a scorer may look at.

    Attributes:
        queries_RWQD: Newest queries after RoPE, oldest first; a scorer takes its window from the end.
        keys_RHND: Keys after RoPE, in order of true position.
        values_RHND: Values of the same cells; None where the scorer reads none.
        lengths_RH: int64 candidates of each head.
        budget: Cells that a head keeps, on average.
        statistic_RHN: The scorer's running statistic of each candidate, float32; ``Statistic.initial`` for one that
            takes part for the first time. None where the scorer declares no statistic.
        seeds_R: int64 seed of each row, of any value; None where the scorer draws nothing.
        positions_R: int64 true position of the next token; None where the scorer is not calibrated.
        centres: Where queries lie before RoPE; None where the scorer is not calibrated.
    """

    queries_RWQD: Tensor
    keys_RHND: Tensor
    values_RHND: Tensor | None
    lengths_RH: Tensor
    budget: int
    statistic_RHN: Tensor | None = None
    seeds_R: Tensor | None = None
    positions_R: Tensor | None = None
    centres: Centres | None = None

    def with_statistic(self, statistic_RHN: Tensor) -> "Candidates":
        """Returns the same candidates with a running statistic."""
        return replace(self, statistic_RHN=statistic_RHN)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scored:
    """What a scorer says.

    Attributes:
        scores_RHN: float32; ``+inf`` in the window, ``-inf`` on padding, finite elsewhere.
        statistic_RHN: The running statistic from now on; None where the scorer declares none.
    """

    scores_RHN: Tensor
    statistic_RHN: Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistic:
    """A number per cell that a scorer carries from round to round.

    Whoever runs rounds owns it: it starts at ``initial`` with each new candidate, follows its cell through keep and
    compaction, and ends with the cell or the request.

    Attributes:
        what: What the number is, for people.
        initial: Its value before the first round of a cell.
    """

    what: str
    initial: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """A scorer and its needs.

    Attributes:
        score: The function; keeps nothing.
        window: Newest tokens whose queries it reads, and which are always kept.
        statistic: The running statistic it needs, if any.
        reads_values: Whether it needs values.
        seeded: Whether it draws, and needs seeds.
        calibrated: Whether it needs a profile's centres of queries, and the position of the next token.
    """

    score: Callable[[Candidates], Scored]
    window: int = 8
    statistic: Statistic | None = None
    reads_values: bool = False
    seeded: bool = False
    calibrated: bool = False


def framed(scores_RHN: Tensor, lengths_RH: Tensor, window: int) -> Tensor:
    """Returns finite scores with the window at ``+inf`` and padding at ``-inf``."""
    width = scores_RHN.shape[2]
    past_RHN, valid_RHN = valid_mask(lengths_RH - window, width), valid_mask(lengths_RH, width)
    return scores_RHN.masked_fill(~past_RHN, float("inf")).masked_fill(~valid_RHN, float("-inf"))


def newest(queries_RWQD: Tensor, window: int) -> Tensor:
    """Returns the queries of a window, or all where there are fewer."""
    return queries_RWQD[:, -window:]
