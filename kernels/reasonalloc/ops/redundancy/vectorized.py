"""All heads at once.

The mean cosine of a key to all others needs no matrix: it is the key times the sum of all keys. Only
the exemption needs pairwise cosines, to find the last near-duplicate of each key; these are made and
dropped in chunks, and the exempted pairs are taken off the sums afterwards.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from reasonalloc.shapes import valid_mask

_MIN_NORM = 1e-8
_FLOAT_BYTES = 4


def mean_cosine(
    keys_RHND: Tensor, lengths_RH: Tensor, *, threshold: float, spare_first: bool, transient_bytes: int
) -> Tensor:
    """See ``reasonalloc.ops.redundancy.mean_cosine``."""
    if keys_RHND.numel() == 0:
        return torch.zeros(keys_RHND.shape[:3], device=keys_RHND.device)
    # Zero keys have no cosine with any other, so padding drops out of every sum below.
    valid_RHN = valid_mask(lengths_RH, keys_RHND.shape[2])
    keys_RHND = torch.where(valid_RHN[..., None], keys_RHND, 0).float()
    unit_END = normalize(keys_RHND.flatten(0, 1), dim=2, eps=_MIN_NORM)  # E: the lists of all rows and heads
    last_EN = _last_duplicates(unit_END, threshold, transient_bytes)
    exists_EN, last_EN = last_EN >= 0, last_EN.clamp(min=0)
    if spare_first:
        # A key's cosine with itself counts as zero already.
        exists_EN = exists_EN | (torch.arange(last_EN.shape[1], device=last_EN.device) > 0)
    duplicate_END = unit_END.gather(1, last_EN[..., None].expand_as(unit_END))
    exempted_EN = (unit_END * duplicate_END).sum(dim=2) * exists_EN

    sums_EN = (unit_END @ unit_END.sum(dim=1, keepdim=True).transpose(1, 2)).squeeze(2) - unit_END.square().sum(dim=2)
    sums_EN = sums_EN.scatter_add(1, last_EN, -exempted_EN)
    return sums_EN.view(keys_RHND.shape[:3]) / lengths_RH.clamp(min=1)[..., None]


def _last_duplicates(unit_END: Tensor, threshold: float, transient_bytes: int) -> Tensor:
    """Position of each key's last near-duplicate other than itself, or -1, as ``[E, N]`` int64."""
    lists, width, _ = unit_END.shape
    last_EN = torch.empty(lists, width, dtype=torch.int64, device=unit_END.device)
    positions_N = torch.arange(1, width + 1, dtype=torch.float32, device=unit_END.device)
    max_keys = max(transient_bytes // (_FLOAT_BYTES * width), 1)
    num_lists, num_keys = max(max_keys // width, 1), min(max_keys, width)
    for first_list in range(0, lists, num_lists):
        chunk = unit_END[first_list : first_list + num_lists]
        for first_key in range(0, width, num_keys):
            keys = chunk[:, first_key : first_key + num_keys]
            cosine = keys @ chunk.transpose(1, 2)
            cosine.diagonal(first_key, dim1=1, dim2=2).zero_()
            # In place, flag by flag times position: the greatest is the last.
            last = cosine.gt_(threshold).mul_(positions_N).amax(dim=2)
            last_EN[first_list : first_list + num_lists, first_key : first_key + num_keys] = last.long() - 1
    return last_EN
