"""Mean cosines without a matrix of them: tiles of it are made, searched and dropped on chip.

_cosine_sums  each key's cosines to all others, added up by way of the sum of all unit keys
_duplicates   each key's last near-duplicate and their cosine, from the newest key backwards
_mean_cosine  takes the exempted cosines off the sums; a search instead of atomics, so that it is repeatable

H   kv heads   N   keys   D   head dimension
BN  keys of one step   BI, BJ  keys of a tile of cosines   BD  head dimension, padded to a power of two
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from reasonalloc.ops import launch
from reasonalloc.ops.common import dot

_BLOCK_KEYS = 64


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
    BD: tl.constexpr, SPARE_FIRST: tl.constexpr,
):  # fmt: skip
    """Place of the last near-duplicate of each key of a tile, or -1, and the cosine of the two.

    Keys 0, 1 and 3 in one direction: the last ones of 0, 1 and 3 are 3, 3 and 1. Tiles are searched from the newest
    back until every key has one, so only keys like no other cost a whole row. SPARE_FIRST gives these key 0.
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
    if SPARE_FIRST:
        o_first = tl.zeros([BI], tl.int32)
        b_first = _load_keys(keys, i_list, o_first, length, N, D, BD).to(tl.float32)
        b_inverse_first = _load_inverse_norms(inverse_ptr, i_list, o_first, length, N)
        b_found = tl.sum(b_ki.to(tl.float32) * b_first, 1) * b_inverse_i * b_inverse_first
        b_cosine = tl.where((b_last < 0) & (o_i > 0), b_found, b_cosine)
        b_last = tl.where(b_last < 0, 0, b_last)
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
    tl.store(sums_ptr + i_list * N + o_j, tl.where(m_j, b_sum / tl.maximum(length, 1), 0.0), mask=o_j < N)


def mean_cosine(keys_RHND: Tensor, lengths_RH: Tensor, *, threshold: float, spare_first: bool) -> Tensor:
    """See ``reasonalloc.ops.redundancy.mean_cosine``."""
    rows, heads, width, head_dim = keys_RHND.shape
    keys_RHND = keys_RHND if keys_RHND.element_size() == 2 else keys_RHND.float()
    keys = _Keys(keys_RHND.contiguous(), lengths_RH.contiguous())
    sums, inverse_norms, cosines = (
        torch.empty(rows, heads, width, dtype=torch.float32, device=keys_RHND.device) for _ in range(3)
    )
    last = torch.empty(rows, heads, width, dtype=torch.int32, device=keys_RHND.device)
    lists, tiles = rows * heads, triton.cdiv(width, _BLOCK_KEYS)
    if sums.numel() == 0:
        return sums
    dims = {"D": head_dim, "BD": launch.power_of_2(head_dim, 16)}
    tile = {"BI": _BLOCK_KEYS, "BJ": _BLOCK_KEYS}
    _cosine_sums[(lists,)](keys, inverse_norms, sums, width, BN=_BLOCK_KEYS, **dims)
    _duplicates[(lists, tiles)](
        keys, inverse_norms, last, cosines, threshold, width, SPARE_FIRST=spare_first, **tile, **dims
    )  # fmt: skip
    _mean_cosine[(lists, tiles)](keys.lengths, sums, last, cosines, width, **tile)
    return sums
