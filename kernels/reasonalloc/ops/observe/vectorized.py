"""All heads at once."""

import math

import torch
from torch import Tensor

from reasonalloc.shapes import valid_mask


def window_attention(
    queries_RWQD: Tensor,
    keys_RHND: Tensor,
    lengths_RH: Tensor,
    *,
    window: int,
    scope: str,
    group: str,
) -> Tensor:
    """See ``reasonalloc.ops.observe.window_attention``."""
    rows, heads, width, head_dim = keys_RHND.shape
    num_queries = queries_RWQD.shape[1]
    if keys_RHND.numel() == 0:
        return torch.zeros(rows, heads, width, device=keys_RHND.device)
    keys_RHND = torch.where(valid_mask(lengths_RH, width)[..., None], keys_RHND, 0).float()
    # One product per kv head: its query heads join the axis of queries.
    queries_RHED = queries_RWQD.float().reshape(rows, num_queries, heads, -1, head_dim).transpose(1, 2).flatten(2, 3)
    logits_RHEN = queries_RHED @ keys_RHND.transpose(2, 3)
    logits_RHWGN = logits_RHEN.view(rows, heads, num_queries, -1, width) / math.sqrt(head_dim)
    if group == "max_logit":
        logits_RHWGN = logits_RHWGN.amax(dim=3, keepdim=True)
    visible_RHWN = _visible(lengths_RH, num_queries, width, window, scope)
    hidden_RHW1N = ~visible_RHWN[:, :, :, None]
    # A query that sees nothing would give NaN; its weights are zero.
    weights_RHWGN = logits_RHWGN.masked_fill(hidden_RHW1N, float("-inf")).softmax(dim=4).masked_fill(hidden_RHW1N, 0)
    if group == "max":
        return weights_RHWGN.amax(dim=3).mean(dim=2)
    means_RHGN = weights_RHWGN.mean(dim=2)
    return means_RHGN.mean(dim=2) if group == "mean" else means_RHGN.amax(dim=2)


def _visible(lengths_RH: Tensor, num_queries: int, width: int, window: int, scope: str) -> Tensor:
    """Which keys each query of the window counts, as ``[R, H, W, N]``."""
    lengths_RH1 = lengths_RH[..., None]
    if scope == "past":
        return valid_mask((lengths_RH1 - window).expand(*lengths_RH.shape, num_queries), width)
    places_W = torch.arange(1 - num_queries, 1, device=lengths_RH.device)
    return valid_mask(lengths_RH1 + places_W, width)
