"""One head at a time."""

import math

import torch
from torch import Tensor


def window_attention(
    queries_RWQD: Tensor,
    keys_RHND: Tensor,
    lengths_RH: Tensor,
    *,
    window: int,
    scope: str = "past",
    group: str = "max_logit",
) -> Tensor:
    """See ``reasonalloc.ops.observe.window_attention``."""
    rows, heads, width, _ = keys_RHND.shape
    group_size = queries_RWQD.shape[2] // heads
    attention_RHN = torch.zeros(rows, heads, width)
    for row in range(rows):
        for head in range(heads):
            length = int(lengths_RH[row, head])
            queries_WGD = queries_RWQD[row, :, head * group_size : (head + 1) * group_size].float()
            keys_ND = keys_RHND[row, head, :length].float()
            logits_WGN = queries_WGD @ keys_ND.T / math.sqrt(keys_ND.shape[1])
            if group == "max_logit":
                logits_WGN = logits_WGN.amax(dim=1, keepdim=True)
            weights_WGN = torch.zeros_like(logits_WGN)
            num_queries = len(logits_WGN)
            for query in range(num_queries):
                visible = length - window if scope == "past" else length - num_queries + query + 1
                if visible > 0:
                    weights_WGN[query, :, :visible] = logits_WGN[query, :, :visible].softmax(dim=1)
            attention_RHN[row, head, :length] = _reduced(weights_WGN, group)
    return attention_RHN


def _reduced(weights_WGN: Tensor, group: str) -> Tensor:
    if group == "max":
        return weights_WGN.amax(dim=1).mean(dim=0)
    means_GN = weights_WGN.mean(dim=0)
    return means_GN.mean(dim=0) if group == "mean" else means_GN.amax(dim=0)
