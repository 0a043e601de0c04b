"""All heads at once: what beats the k-th highest score, then the latest of what equals it."""

from torch import Tensor

from reasonalloc.shapes import valid_mask


def keep_top(scores_RHN: Tensor, lengths_RH: Tensor, counts_RH: Tensor) -> Tensor:
    """See ``reasonalloc.ops.keep.keep_top``."""
    width = scores_RHN.shape[2]
    if width == 0:
        return scores_RHN.bool()
    valid_RHN = valid_mask(lengths_RH, width)
    counts_RH1 = counts_RH[..., None]
    descending_RHN = scores_RHN.masked_fill(~valid_RHN, float("-inf")).sort(dim=2, descending=True).values
    threshold_RH1 = descending_RHN.gather(2, (counts_RH1 - 1).clamp(min=0))
    above_RHN = valid_RHN & (scores_RHN > threshold_RH1)
    level_RHN = valid_RHN & (scores_RHN == threshold_RH1)
    level_so_far_RHN = level_RHN.cumsum(dim=2)
    later_RHN = level_so_far_RHN[..., -1:] - level_so_far_RHN
    room_RH1 = counts_RH1 - above_RHN.sum(dim=2, keepdim=True)
    return above_RHN | (level_RHN & (later_RHN < room_RH1))
