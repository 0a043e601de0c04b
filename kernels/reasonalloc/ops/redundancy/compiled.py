"""On a CPU: a program that numba compiles, a list to a thread.

The mean cosine of a key to all others needs no matrix: it is the key times the sum of all keys. Only the exemption
needs pairwise cosines, to find the last near-duplicate of each key. They are taken from the newest keys backwards, a
block at a time, and a key is done with its first near-duplicate: keys of real models have one close by, as a rule.
"""

import numba
import numpy as np
import torch
from numba import prange
from torch import Tensor

from reasonalloc.ops.intrinsics import BITS, compiled, widen

BLOCK = 64
"""Keys that a key is compared with at a time; a block of head_dim 128 fits into a core's first cache."""

MIN_NORM = 1e-8


def mean_cosine(keys_RHND: Tensor, lengths_RH: Tensor, *, threshold: float, spare_first: bool) -> Tensor:
    """See ``reasonalloc.ops.redundancy.mean_cosine``."""
    means_RHN = torch.zeros(keys_RHND.shape[:3])
    if keys_RHND.numel() == 0:
        return means_RHN
    if keys_RHND.dtype not in BITS:
        keys_RHND = keys_RHND.float()
    bits_END = keys_RHND.contiguous().view(BITS[keys_RHND.dtype]).flatten(0, 1).numpy()
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    lengths_E, means_EN = lengths_RH.flatten().numpy(), means_RHN.flatten(0, 1).numpy()
    _all_lists(bits_END, lengths_E, np.float32(threshold), spare_first, means_EN)
    return means_RHN


@compiled()
def _scale(keys, length, rows, columns, total):
    """Writes unit keys, as rows and as columns, and adds them up."""
    for i in range(length):
        row, square = rows[i], np.float32(0)
        for d in range(len(total)):
            row[d] = widen(keys[i, d])
            square += row[d] * row[d]
        scale = np.float32(1) / max(np.sqrt(square), np.float32(MIN_NORM))
        for d in range(len(total)):
            row[d] *= scale
            columns[d, i] = row[d]
            total[d] += row[d]


@compiled()
def _dot(a, b):
    dot = np.float32(0)
    for d in range(len(a)):
        dot += a[d] * b[d]
    return dot


@compiled()
def _search(row, columns, i, block, threshold, cosines):
    """The last near-duplicate of key ``i`` within a block, or -1; its cosine is left in ``cosines``."""
    cosines[:] = np.float32(0)
    for d in range(len(row)):
        factor, column = row[d], columns[d, block : block + BLOCK]
        for j in range(BLOCK):
            cosines[j] += factor * column[j]
    for j in range(BLOCK - 1, -1, -1):
        if cosines[j] > threshold and block + j != i:
            return j
    return -1


@compiled()
def _mean_of_list(keys, length, threshold, spare_first, means):
    """Writes one list's means."""
    dim, width = keys.shape[1], (length + BLOCK - 1) // BLOCK * BLOCK
    rows, columns = np.empty((length, dim), np.float32), np.zeros((dim, width), np.float32)
    total, cosines = np.zeros(dim, np.float32), np.empty(BLOCK, np.float32)
    _scale(keys, length, rows, columns, total)
    for i in range(length):
        means[i] = _dot(rows[i], total) - _dot(rows[i], rows[i])
    searched, left = np.arange(length), length
    for block in range(width - BLOCK, -1, -BLOCK):
        kept = 0
        for n in range(left):
            i = searched[n]
            j = _search(rows[i], columns, i, block, threshold, cosines)
            if j >= 0:
                means[block + j] -= cosines[j]
            else:
                searched[kept] = i
                kept += 1
        left = kept
    if spare_first:
        for i in searched[:left]:
            if i > 0:  # a key's cosine with itself counts as zero already
                means[0] -= _dot(rows[i], rows[0])
    for i in range(length):
        means[i] /= np.float32(length)


@compiled(parallel=True)
def _all_lists(keys, lengths, threshold, spare_first, means):
    for e in prange(len(lengths)):
        _mean_of_list(keys[e], lengths[e], threshold, spare_first, means[e])
