"""Tensor parallelism: each rank holds some of the kv heads, and all must hold rows of the same lengths.

SGLang's scheduler runs once per rank, on the same requests, and what it decides follows from how many slots are free.
A rank scores and routes over its own heads only, so which cells it keeps differs from rank to rank. How many does not:
always ``S * L * H`` of its own H heads, which leaves ``S`` slots. What could part the ranks is a decision that is not
made from the same numbers everywhere; this finds it within a few steps.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

CHECK_STEPS = 16
"""Decode steps between two comparisons; a row that parted stays apart, so none is missed."""


class RankAgreement:
    """Compares the rows of the running requests over the ranks.

    Args:
        group: Process group of the ranks, on the host; None where there is one rank.
        num_ranks: Ranks of the group.
        rank: This one.
    """

    def __init__(self, group: ProcessGroup | None, num_ranks: int, rank: int = 0) -> None:
        self.num_ranks = num_ranks
        self.rank = rank
        self._group = group
        self._steps = 0

    def check(self, rows: Iterable[tuple[str, int, int]]) -> None:
        """Compares every so many steps; each rank must call it once before each decode step.

        Args:
            rows: Id, length and budget of each running request, in the batch's order.

        Raises:
            RuntimeError: The ranks differ; SGLang's process ends, and with it the engine.
        """
        self._steps += 1
        if self.num_ranks == 1 or self._steps % CHECK_STEPS:
            return
        digest = zlib.crc32(repr(list(rows)).encode())
        lowest = torch.tensor([digest, -digest])
        torch.distributed.all_reduce(lowest, torch.distributed.ReduceOp.MIN, group=self._group)
        if lowest[0] != -lowest[1]:
            raise RuntimeError(
                "The tensor-parallel ranks hold KV rows of different lengths, so their caches no longer belong to the "
                "same tokens. The engine ends; start it again, with tp_size 1 if this comes back."
            )
