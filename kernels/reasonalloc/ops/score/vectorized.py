"""All heads at once."""

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d

from reasonalloc.ops.observe import vectorized as observe
from reasonalloc.ops.redundancy import mean_cosine
from reasonalloc.shapes import valid_mask


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
    spare_first: bool,
) -> Tensor:
    """See ``reasonalloc.ops.score.rkv_score``."""
    width = keys_RHND.shape[2]
    num_past_RH = (lengths_RH - window).clamp(min=0)
    valid_RHN, past_RHN = valid_mask(lengths_RH, width), valid_mask(num_past_RH, width)
    if keys_RHND.numel() == 0:
        return torch.full_like(valid_RHN, float("-inf"), dtype=torch.float32)
    importance_RHN = observe.window_attention(
        queries_RWQD, keys_RHND, lengths_RH, window=window, scope="past", group="max_logit"
    )
    scores_RHN = mix * max_pool1d(importance_RHN, pool, stride=1, padding=pool // 2)
    if mix < 1:
        cosine_RHN = mean_cosine(keys_RHND, lengths_RH, threshold=threshold, spare_first=spare_first)
        scores_RHN = scores_RHN - (1 - mix) * cosine_RHN.masked_fill(~valid_RHN, float("-inf")).softmax(dim=2)
    if length_free:
        scores_RHN = scores_RHN * num_past_RH[..., None]
    return scores_RHN.masked_fill(~past_RHN, float("inf")).masked_fill(~valid_RHN, float("-inf"))
