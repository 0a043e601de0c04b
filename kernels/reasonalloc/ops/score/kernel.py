"""The R-KV score without a matrix of cosines: tiles of it are made, searched and dropped on chip.

_importance   attention of the window on each past key, two passes: softmax sums, then weights
_cosine_sums  each key's cosines to all others, added up by way of the sum of all unit keys
_duplicates   each key's last near-duplicate and their cosine, from the newest key backwards
_mean_cosine  takes the exempted cosines off the sums; a search instead of atomics, so that it is repeatable
_combine      softmax of the mean cosines, max-pool of the importance, and their mix

R   rows   H   kv heads   W   window queries   G   query heads per kv head   N   keys   D   head dimension
BN  keys of one step   BI, BJ  keys of a tile of cosines   other B*  axes padded to powers of two
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from reasonalloc.ops import launch
from reasonalloc.ops.common import dot

_BLOCK_KEYS = 64
_BLOCK_SCORES = 256


class _Keys(NamedTuple):
    """Contiguous ``[R, H, N, D]`` keys with ``[R, H]`` lengths."""

    keys: Tensor
    lengths: Tensor


@triton.jit
def _load_keys(keys, i_list, o_n, length, N, D: tl.constexpr, BD: tl.constexpr):
    """Keys of one list in their own dtype, zero behind its end, [BN, BD]."""
    o_d = tl.arange(0, BD)
    p_k = keys.keys + (i_list * N + o_n)[:, None] * D + o_d
    return tl.load(p_k, mask=(o_n < length)[:, None] & (o_d < D), other=0.0)


@triton.jit
def _load_inverse_norms(inverse_ptr, i_list, o_n, length, N):
    return tl.load(inverse_ptr + i_list * N + o_n, mask=o_n < length, other=0.0)


@triton.jit
def _window_logits(b_q, b_k, m_g, m_n, scale, BW: tl.constexpr, BG: tl.constexpr, BN: tl.constexpr):
    """Greatest logit of a group's query heads, minus infinity on keys that are not past, [BW, BN]."""
    b_logit = tl.where(m_g[:, None], dot(b_q, tl.trans(b_k)) * scale, float("-inf"))
    b_logit = tl.max(tl.reshape(b_logit, (BW, BG, BN)), 1)
    return tl.where(m_n, b_logit, float("-inf"))


@triton.jit
def _importance(
    queries_ptr, keys, importance_ptr, scale, window, N, W: tl.constexpr, G: tl.constexpr, D: tl.constexpr,
    BW: tl.constexpr, BG: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Mean attention of the window on each past key of one list; zero elsewhere.

    Two queries with logits log(1), log(3) and log(1), log(1) on two keys: (1/4 + 1/2) / 2 and (3/4 + 1/2) / 2.
    """
    i_r, i_h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    i_list = i_r * tl.num_programs(1) + i_h
    past = tl.maximum(tl.load(keys.lengths + i_list) - window, 0)
    o_e, o_d = tl.arange(0, BW * BG), tl.arange(0, BD)
    o_w, m_g = o_e // BG, o_e % BG < G
    p_q = queries_ptr + (((i_r * W + o_w) * tl.num_programs(1) + i_h) * G + o_e % BG)[:, None] * D + o_d
    b_q = tl.load(p_q, mask=((o_w < W) & m_g)[:, None] & (o_d < D), other=0.0)  # [BW * BG, BD]
    b_max = tl.full([BW], float("-inf"), tl.float32)
    b_sum = tl.zeros([BW], tl.float32)
    for at in range(0, past, BN):
        o_n = at + tl.arange(0, BN)
        b_k = _load_keys(keys, i_list, o_n, past, N, D, BD)
        b_logit = _window_logits(b_q, b_k, m_g, o_n < past, scale, BW, BG, BN)
        b_new_max = tl.maximum(b_max, tl.max(b_logit, 1))
        b_sum = b_sum * tl.exp(b_max - b_new_max) + tl.sum(tl.exp(b_logit - b_new_max[:, None]), 1)
        b_max = b_new_max
    b_max, b_sum = tl.where(b_sum > 0, b_max, 0.0), tl.where(b_sum > 0, b_sum, 1.0)
    for at in range(0, N, BN):
        o_n = at + tl.arange(0, BN)
        b_k = _load_keys(keys, i_list, o_n, past, N, D, BD)
        b_logit = _window_logits(b_q, b_k, m_g, o_n < past, scale, BW, BG, BN)
        b_weight = tl.exp(b_logit - b_max[:, None]) / b_sum[:, None]
        b_mean = tl.sum(tl.where((tl.arange(0, BW) < W)[:, None], b_weight, 0.0), 0) / W
        tl.store(importance_ptr + i_list * N + o_n, b_mean, mask=o_n < N)


@triton.jit
def _cosine_sums(keys, inverse_ptr, sums_ptr, N, D: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr):
    """Inverse norms of one list's keys, and sums of each key's cosines to all others.

    Unit keys (1, 0), (0, 1), (1, 0) add up to (2, 1); their products with it, less their own 1, are 1, 0 and 1.
    """
    i_list = tl.program_id(0).to(tl.int64)
    length = tl.load(keys.lengths + i_list)
    b_total = tl.zeros([BD], tl.float32)
    for at in range(0, length, BN):
        o_n = at + tl.arange(0, BN)
        b_k = _load_keys(keys, i_list, o_n, length, N, D, BD).to(tl.float32)
        b_inverse = 1.0 / tl.maximum(tl.sqrt(tl.sum(b_k * b_k, 1)), 1e-8)
        tl.store(inverse_ptr + i_list * N + o_n, b_inverse, mask=o_n < length)
        b_total += tl.sum(b_k * b_inverse[:, None], 0)
    for at in range(0, length, BN):
        o_n = at + tl.arange(0, BN)
        b_k = _load_keys(keys, i_list, o_n, length, N, D, BD).to(tl.float32)
        b_unit = b_k / tl.maximum(tl.sqrt(tl.sum(b_k * b_k, 1)), 1e-8)[:, None]
        b_sum = tl.sum(b_unit * b_total[None, :], 1) - tl.sum(b_unit * b_unit, 1)
        tl.store(sums_ptr + i_list * N + o_n, b_sum, mask=o_n < length)


@triton.jit
def _duplicates(
    keys, inverse_ptr, last_ptr, cosine_ptr, threshold, N, D: tl.constexpr, BI: tl.constexpr, BJ: tl.constexpr,
    BD: tl.constexpr,
):  # fmt: skip
    """Place of the last near-duplicate of each key of a tile, or -1, and the cosine of the two.

    Keys 0, 1 and 3 in one direction: the last ones of 0, 1 and 3 are 3, 3 and 1. Tiles are searched from the newest
    back until every key has one, so only keys like no other cost a whole row.
    """
    i_list = tl.program_id(0).to(tl.int64)
    length = tl.load(keys.lengths + i_list)
    o_i = tl.program_id(1) * BI + tl.arange(0, BI)
    b_ki = _load_keys(keys, i_list, o_i, length, N, D, BD)
    b_inverse_i = _load_inverse_norms(inverse_ptr, i_list, o_i, length, N)
    b_last = tl.where(o_i < length, -1, N)
    b_cosine = tl.zeros([BI], tl.float32)
    at = (tl.maximum(length - 1, 0) // BJ) * BJ
    while (at >= 0) & (tl.min(b_last, 0) < 0):
        o_j = (at + tl.arange(0, BJ)).to(tl.int32)
        b_kj = _load_keys(keys, i_list, o_j, length, N, D, BD)
        b_inverse_j = _load_inverse_norms(inverse_ptr, i_list, o_j, length, N)
        b_cosines = dot(b_ki, tl.trans(b_kj)) * b_inverse_i[:, None] * b_inverse_j[None, :]  # [BI, BJ]
        m_near = (b_cosines > threshold) & (o_i[:, None] != o_j[None, :]) & (o_j < length)[None, :]
        b_newest = tl.max(tl.where(m_near, o_j[None, :], -1), 1)
        b_found = tl.sum(tl.where(o_j[None, :] == b_newest[:, None], b_cosines, 0.0), 1)
        m_new = (b_last < 0) & (b_newest >= 0)
        b_cosine = tl.where(m_new, b_found, b_cosine)
        b_last = tl.where(m_new, b_newest, b_last)
        at -= BJ
    tl.store(last_ptr + i_list * N + o_i, b_last, mask=o_i < length)
    tl.store(cosine_ptr + i_list * N + o_i, b_cosine, mask=o_i < length)


@triton.jit
def _mean_cosine(lengths_ptr, sums_ptr, last_ptr, cosine_ptr, N, BI: tl.constexpr, BJ: tl.constexpr):
    """Divides sums, less the cosines of those whose last near-duplicate a key is, by the length; in place.

    Sum 2.5 of 5 keys, exempted by two of them with cosines 1 and 0.5: 0.2.
    """
    i_list = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths_ptr + i_list)
    o_j = tl.program_id(1) * BJ + tl.arange(0, BJ)
    m_j = o_j < length
    b_sum = tl.load(sums_ptr + i_list * N + o_j, mask=m_j, other=0.0)
    for at in range(0, length, BI):
        o_i = i_list * N + at + tl.arange(0, BI)
        m_i = at + tl.arange(0, BI) < length
        b_last = tl.load(last_ptr + o_i, mask=m_i, other=-1)
        b_cosine = tl.load(cosine_ptr + o_i, mask=m_i, other=0.0)
        b_sum -= tl.sum(tl.where(b_last[:, None] == o_j[None, :], b_cosine[:, None], 0.0), 0)
    tl.store(sums_ptr + i_list * N + o_j, b_sum / tl.maximum(length, 1), mask=m_j)


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
    transient_bytes: int,
) -> Tensor:
    """See ``reasonalloc.ops.score.rkv_score``; no cosines are stored, so ``transient_bytes`` has no effect."""
    rows, heads, width, _ = keys_RHND.shape
    lists = rows * heads
    queries_RWQD, keys_RHND = _in_one_dtype(queries_RWQD, keys_RHND)
    keys = _Keys(keys_RHND.contiguous(), lengths_RH.contiguous())
    importance, sums, inverse_norms, cosines, scores_RHN = (
        torch.empty(rows, heads, width, dtype=torch.float32, device=keys_RHND.device) for _ in range(5)
    )
    last = torch.empty(rows, heads, width, dtype=torch.int32, device=keys_RHND.device)
    if width == 0:
        return scores_RHN
    _launch_importance(queries_RWQD.contiguous(), keys, importance, window)
    head_dim, tiles = keys_RHND.shape[3], triton.cdiv(width, _BLOCK_KEYS)
    dims = {"D": head_dim, "BD": launch.power_of_2(head_dim, 16)}
    tile = {"BI": _BLOCK_KEYS, "BJ": _BLOCK_KEYS}
    _cosine_sums[(lists,)](keys, inverse_norms, sums, width, BN=_BLOCK_KEYS, **dims)
    _duplicates[(lists, tiles)](keys, inverse_norms, last, cosines, threshold, width, **tile, **dims)
    _mean_cosine[(lists, tiles)](keys.lengths, sums, last, cosines, width, **tile)
    _combine[(lists,)](
        importance, sums, keys.lengths, scores_RHN, mix, window, width, REACH=pool // 2,
        LENGTH_FREE=length_free, BN=min(launch.power_of_2(width), _BLOCK_SCORES),
    )  # fmt: skip
    return scores_RHN


def _launch_importance(queries_RWQD: Tensor, keys: _Keys, importance: Tensor, window: int) -> None:
    rows, num_queries, query_heads, head_dim = queries_RWQD.shape
    heads, width = keys.keys.shape[1:3]
    group = query_heads // heads
    block_group = launch.power_of_2(group)
    _importance[(rows, heads)](
        queries_RWQD, keys, importance, head_dim**-0.5, window, width, W=num_queries, G=group, D=head_dim,
        BW=launch.power_of_2(num_queries, max(16 // block_group, 1)), BG=block_group,
        BD=launch.power_of_2(head_dim, 16), BN=_BLOCK_KEYS,
    )  # fmt: skip


def _in_one_dtype(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """As they are if both are of one 16-bit dtype, whose products are exact in float32; else in float32."""
    if queries.dtype == keys.dtype and keys.element_size() == 2:
        return queries, keys
    return queries.float(), keys.float()
