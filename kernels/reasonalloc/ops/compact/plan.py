"""What a compaction decides."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CompactionPlan:
    """Moves to execute, and the table that is true once they are.

    Attributes:
        src_M: int64 cells to read, all in slots to be released.
        dst_M: int64 cells to write, all in slots that stay.
        cells_RHK: int64 cells of the kept candidates, in order of true position, padded with 0.
        lengths_RH: int64, number of kept candidates.
    """

    src_M: Tensor
    dst_M: Tensor
    cells_RHK: Tensor
    lengths_RH: Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Compacted:
    """What a compaction did; sizes are capacities, so nobody had to wait for the device.

    Attributes:
        cells_RHN: int64 cells of the kept candidates, in order of true position, padded with 0.
        lengths_RH: int64, number of kept candidates.
        unmatched_B: int64 movers less holes of each request. Not 0 means that the caller kept a wrong number of
            cells: the movers left over still lie in released slots, so that request's cache is lost.
    """

    cells_RHN: Tensor
    lengths_RH: Tensor
    unmatched_B: Tensor


def unequal_counts_error(request: int, num_holes: int, num_movers: int) -> ValueError:
    """The error for a request whose kept cells do not fill its remaining slots exactly."""
    return ValueError(
        f"request {request} has {num_holes} holes and {num_movers} cells to move into them; "
        "keep exactly as many cells as the slots that stay have"
    )
