"""Attention of the window on each candidate, one program per list: softmax sums first, then weights.

R   rows   H   kv heads   W   window queries   G   query heads per kv head   N   keys   D   head dimension
BE  queries times query heads of one list, padded   BN  keys of one step   other B*  axes padded to powers of two
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from reasonalloc.ops import launch
from reasonalloc.ops.common import dot

_BLOCK_KEYS = 64
_GROUPS = {"max_logit": 0, "max": 1, "max_of_means": 2, "mean": 3}


@triton.jit
def _logits(
    b_q, p_k, o_n, end, m_g, length, window, scale, D: tl.constexpr, W: tl.constexpr, BW: tl.constexpr,
    BG: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr, CAUSAL: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Logits of a step, minus infinity on what a query does not count: [BW, BN] if GROUP is 0, else [BW * BG, BN].

    With 2 queries and 5 keys, query 0 counts keys 0 to 3 if CAUSAL, and with a window of 2 keys 0 to 2 if not.
    """
    o_d = tl.arange(0, BD)
    b_k = tl.load(p_k + o_n[:, None] * D + o_d, mask=(o_n < end)[:, None] & (o_d < D), other=0.0)  # [BN, BD]
    b_logit = dot(b_q, tl.trans(b_k)) * scale
    if GROUP == 0:
        b_logit = tl.max(tl.reshape(tl.where(m_g[:, None], b_logit, float("-inf")), (BW, BG, BN)), 1)
        o_w = tl.arange(0, BW)
    else:
        o_w = tl.arange(0, BW * BG) // BG
    last = length - window - 1 + 0 * o_w
    if CAUSAL:
        last = length - W + o_w
    return tl.where(o_n[None, :] <= last[:, None], b_logit, float("-inf"))


@triton.jit
def _reduce(
    b_weight, m_row, W: tl.constexpr, G: tl.constexpr, BW: tl.constexpr, BG: tl.constexpr, BN: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    """One weight per key, [BN]; ``m_row`` marks rows that are not padding.

    Weights 1, 3 of query 0 and 5, 2 of query 1: the greatest per query give 4, the means of the heads 3 and 2.5.
    """
    b_weight = tl.where(m_row[:, None], b_weight, 0.0)
    if GROUP == 0:
        b_reduced = tl.sum(b_weight, 0) / W
    elif GROUP == 1:
        b_reduced = tl.sum(tl.max(tl.reshape(b_weight, (BW, BG, BN)), 1), 0) / W
    elif GROUP == 2:
        b_reduced = tl.max(tl.sum(tl.reshape(b_weight, (BW, BG, BN)), 0), 0) / W
    else:
        b_reduced = tl.sum(b_weight, 0) / (W * G)
    return b_reduced


@triton.jit
def _window_attention(
    queries_ptr, keys_ptr, lengths_ptr, attention_ptr, scale, window, N, W: tl.constexpr, G: tl.constexpr,
    D: tl.constexpr, BW: tl.constexpr, BG: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr, CAUSAL: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    """Mean attention of the window on each key of one list; zero elsewhere.

    Two queries with logits log(1), log(3) and log(1), log(1) on two keys: (1/4 + 1/2) / 2 and (3/4 + 1/2) / 2.
    """
    i_r, i_h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    i_list = i_r * tl.num_programs(1) + i_h
    length = tl.load(lengths_ptr + i_list)
    end = length if CAUSAL else tl.maximum(length - window, 0)
    o_e, o_d = tl.arange(0, BW * BG), tl.arange(0, BD)
    o_w, m_g = o_e // BG, o_e % BG < G
    p_q = queries_ptr + (((i_r * W + o_w) * tl.num_programs(1) + i_h) * G + o_e % BG)[:, None] * D + o_d
    b_q = tl.load(p_q, mask=((o_w < W) & m_g)[:, None] & (o_d < D), other=0.0)  # [BW * BG, BD]
    p_k = keys_ptr + i_list * N * D
    rows: tl.constexpr = BW if GROUP == 0 else BW * BG
    m_row = (tl.arange(0, BW) < W) if GROUP == 0 else (o_w < W) & m_g
    b_max = tl.full([rows], float("-inf"), tl.float32)
    b_sum = tl.zeros([rows], tl.float32)
    for at in range(0, end, BN):
        o_n = at + tl.arange(0, BN)
        b_logit = _logits(b_q, p_k, o_n, end, m_g, length, window, scale, D, W, BW, BG, BD, BN, CAUSAL, GROUP)
        b_new = tl.maximum(b_max, tl.max(b_logit, 1))
        b_new = tl.where(b_new == float("-inf"), 0.0, b_new)
        b_sum = b_sum * tl.exp(b_max - b_new) + tl.sum(tl.exp(b_logit - b_new[:, None]), 1)
        b_max = b_new
    b_max, b_sum = tl.where(b_sum > 0, b_max, 0.0), tl.where(b_sum > 0, b_sum, 1.0)
    for at in range(0, N, BN):
        o_n = at + tl.arange(0, BN)
        b_logit = _logits(b_q, p_k, o_n, end, m_g, length, window, scale, D, W, BW, BG, BD, BN, CAUSAL, GROUP)
        b_weight = tl.exp(b_logit - b_max[:, None]) / b_sum[:, None]
        b_mean = _reduce(b_weight, m_row, W, G, BW, BG, BN, GROUP)
        tl.store(attention_ptr + i_list * N + o_n, tl.where(o_n < end, b_mean, 0.0), mask=o_n < N)


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
    attention_RHN = torch.empty(rows, heads, width, dtype=torch.float32, device=keys_RHND.device)
    if attention_RHN.numel() == 0:
        return attention_RHN
    queries, keys = in_one_dtype(queries_RWQD, keys_RHND)
    num_queries, group_size = queries.shape[1], queries.shape[2] // heads
    block_group = launch.power_of_2(group_size)
    _window_attention[(rows, heads)](
        queries.contiguous(), keys.contiguous(), lengths_RH.contiguous(), attention_RHN, head_dim**-0.5, window, width,
        W=num_queries, G=group_size, D=head_dim, BW=launch.power_of_2(num_queries, max(16 // block_group, 1)),
        BG=block_group, BD=launch.power_of_2(head_dim, 16), BN=_BLOCK_KEYS, CAUSAL=scope == "causal",
        GROUP=_GROUPS[group],
    )  # fmt: skip
    return attention_RHN


def in_one_dtype(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """As they are if both are of one 16-bit dtype, whose products are exact in float32; else in float32."""
    if queries.dtype == keys.dtype and keys.element_size() == 2:
        return queries, keys
    return queries.float(), keys.float()
