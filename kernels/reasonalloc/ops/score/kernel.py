"""The R-KV score from attention and redundancy, one program per list.

REACH  keys to each side of the max-pool   N   keys   BN  keys of one step
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from reasonalloc.ops import launch
from reasonalloc.ops.observe import kernel as observe_kernel
from reasonalloc.ops.redundancy import kernel as redundancy_kernel

_BLOCK_SCORES = 256


@triton.jit
def _combine(
    importance_ptr, mean_ptr, lengths_ptr, scores_ptr, mix, window, N, REACH: tl.constexpr,
    LENGTH_FREE: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Scores of one list: past keys by the mix, plus infinity in the window, minus infinity on padding.

    Importance 0.6 in reach, redundancy 0.25, mix 0.1 and 4 past keys: 4 * (0.1 * 0.6 - 0.9 * 0.25) = -0.66.
    """
    i_list = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths_ptr + i_list)
    past = tl.maximum(length - window, 0)
    p_mean, p_importance = mean_ptr + i_list * N, importance_ptr + i_list * N
    # Mean cosines are at most 1 in size, so the softmax needs no maximum.
    total = tl.full([], 0.0, tl.float32)
    for at in range(0, length, BN):
        o_n = at + tl.arange(0, BN)
        b_mean = tl.load(p_mean + o_n, mask=o_n < length, other=0.0)
        total += tl.sum(tl.where(o_n < length, tl.exp(b_mean), 0.0), 0)
    for at in range(0, N, BN):
        o_n = at + tl.arange(0, BN)
        b_redundancy = tl.exp(tl.load(p_mean + o_n, mask=o_n < past, other=0.0)) / tl.where(length > 0, total, 1.0)
        b_pooled = tl.zeros([BN], tl.float32)
        for away in range(-REACH, REACH + 1):
            o_near = o_n + away
            m_near = (o_near >= 0) & (o_near < past)
            b_pooled = tl.maximum(b_pooled, tl.load(p_importance + o_near, mask=m_near, other=0.0))
        b_score = mix * b_pooled - (1 - mix) * b_redundancy
        if LENGTH_FREE:
            b_score = b_score * past
        b_score = tl.where(o_n < past, b_score, tl.where(o_n < length, float("inf"), float("-inf")))
        tl.store(scores_ptr + i_list * N + o_n, b_score, mask=o_n < N)


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
    rows, heads, width, _ = keys_RHND.shape
    scores_RHN = torch.empty(rows, heads, width, dtype=torch.float32, device=keys_RHND.device)
    if scores_RHN.numel() == 0:
        return scores_RHN
    importance_RHN = observe_kernel.window_attention(
        queries_RWQD, keys_RHND, lengths_RH, window=window, scope="past", group="max_logit"
    )
    if mix < 1:
        cosine_RHN = redundancy_kernel.mean_cosine(keys_RHND, lengths_RH, threshold=threshold, spare_first=spare_first)
    else:
        cosine_RHN = torch.zeros_like(importance_RHN)
    _combine[(rows * heads,)](
        importance_RHN, cosine_RHN, lengths_RH.contiguous(), scores_RHN, mix, window, width, REACH=pool // 2,
        LENGTH_FREE=length_free, BN=min(launch.power_of_2(width), _BLOCK_SCORES),
    )  # fmt: skip
    return scores_RHN
