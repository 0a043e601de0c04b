"""All heads at once.

The mean cosine of a key to all others needs no matrix: it is the key times the sum of all keys. Only
the exemption needs pairwise cosines, to find the last near-duplicate of each key; these are made and
dropped in chunks, and the exempted pairs are taken off the sums afterwards.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d, normalize

from reasonalloc.shapes import valid_mask

_MIN_NORM = 1e-8
_FLOAT_BYTES = 4


def rkv_score(
    queries_RWQD: Tensor,
    keys_RHND: Tensor,
    lengths_RH: Tensor,
    *,
    window: int,
    mix: float,
    pool: int,
    threshold: float,
    length_free: bool,
    transient_bytes: int,
) -> Tensor:
    """See ``reasonalloc.ops.score.rkv_score``."""
    width = keys_RHND.shape[2]
    num_past_RH = (lengths_RH - window).clamp(min=0)
    valid_RHN, past_RHN = valid_mask(lengths_RH, width), valid_mask(num_past_RH, width)
    if keys_RHND.numel() == 0:
        return torch.full_like(valid_RHN, float("-inf"), dtype=torch.float32)
    # Zero keys have no cosine with any other, so padding drops out of every sum below.
    keys_RHND = torch.where(valid_RHN[..., None], keys_RHND, 0).float()
    importance_RHN = _importance(queries_RWQD.float(), keys_RHND, past_RHN)
    importance_RHN = max_pool1d(importance_RHN, pool, stride=1, padding=pool // 2)
    mean_cosine_RHN = _mean_cosine(keys_RHND, lengths_RH, threshold, transient_bytes)
    redundancy_RHN = mean_cosine_RHN.masked_fill(~valid_RHN, float("-inf")).softmax(dim=2)
    scores_RHN = mix * importance_RHN - (1 - mix) * redundancy_RHN
    if length_free:
        scores_RHN = scores_RHN * num_past_RH[..., None]
    return scores_RHN.masked_fill(~past_RHN, float("inf")).masked_fill(~valid_RHN, float("-inf"))


def _importance(queries_RWQD: Tensor, keys_RHND: Tensor, past_RHN: Tensor) -> Tensor:
    """Mean attention of the window on each past key; zero elsewhere."""
    rows, heads, width, head_dim = keys_RHND.shape
    num_queries = queries_RWQD.shape[1]
    # One product per kv head: its query heads join the axis of queries.
    queries_RHED = queries_RWQD.reshape(rows, num_queries, heads, -1, head_dim).transpose(1, 2).flatten(2, 3)
    logits_RHEN = queries_RHED @ keys_RHND.transpose(2, 3)
    logits_RHWN = logits_RHEN.view(rows, heads, num_queries, -1, width).amax(dim=3) / math.sqrt(head_dim)
    attention_RHWN = logits_RHWN.masked_fill(~past_RHN[:, :, None], float("-inf")).softmax(dim=3)
    return attention_RHWN.mean(dim=2).masked_fill(~past_RHN, 0)


def _mean_cosine(keys_RHND: Tensor, lengths_RH: Tensor, threshold: float, transient_bytes: int) -> Tensor:
    """Mean over a list of each key's cosine to the others, less the exempted pairs."""
    unit_END = normalize(keys_RHND.flatten(0, 1), dim=2, eps=_MIN_NORM)  # E: the lists of all rows and heads
    last_EN = _last_duplicates(unit_END, threshold, transient_bytes)
    exists_EN, last_EN = last_EN >= 0, last_EN.clamp(min=0)
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
