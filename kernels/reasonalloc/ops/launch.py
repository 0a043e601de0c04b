"""Where kernels run, and how they are launched.

Launch figures are committed, not searched for at run time: a search would run inside the first
request, and cannot run at all in Triton's interpreter. They follow from what fits into shared
memory, not from measurements; ``python -m reasonalloc.bench gpu`` measures.
"""

import functools
import os
from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class AttendLaunch:
    """Launch of decode attention.

    Attributes:
        block_tokens: Tokens per step of a program.
        chunk_tokens: Fewest tokens per program; a multiple of ``block_tokens``.
        splits: Most programs per list; a power of two.
        warps: Warps per program.
        stages: Steps whose loads are in flight.
    """

    block_tokens: int
    chunk_tokens: int
    splits: int
    warps: int
    stages: int


# 64 tokens of 128 16-bit keys and values are 32 KiB a stage: two fit into the 99 KiB of every part since 8.0.
ATTEND_DEFAULT = AttendLaunch(block_tokens=64, chunk_tokens=256, splits=32, warps=4, stages=2)
# By (compute capability, head_dim): parts with 163 and 227 KiB of shared memory take more stages.
ATTEND = {
    ((8, 0), 64): replace(ATTEND_DEFAULT, stages=3),
    ((8, 0), 128): replace(ATTEND_DEFAULT, stages=3),
    ((9, 0), 64): replace(ATTEND_DEFAULT, stages=4),
    ((9, 0), 128): replace(ATTEND_DEFAULT, stages=3),
    ((10, 0), 64): replace(ATTEND_DEFAULT, stages=4),
    ((10, 0), 128): replace(ATTEND_DEFAULT, stages=3),
}


CPU_KERNELS_VARIABLE = "REASONALLOC_CPU_KERNELS"
"""Environment variable; with 1, and ``TRITON_INTERPRET=1``, kernels run on CPU tensors too: for tests, and slow."""


def use_kernel(device: torch.device) -> bool:
    """Whether operators on this device run as kernels: on CUDA, where triton is installed.

    This is the only place that decides. A kernel that fails raises; nothing falls back.
    """
    return (device.type == "cuda" or (device.type == "cpu" and _on_cpu())) and _has_triton()


def attend_launch(like: Tensor) -> AttendLaunch:
    """The launch of decode attention for queries ``[B, Q, D]`` on their device.

    Queries of four bytes take half the tokens per step, so that a stage stays as large.
    """
    capability = torch.cuda.get_device_capability(like.device) if like.is_cuda else None
    launch = ATTEND_DEFAULT if capability is None else ATTEND.get((capability, like.shape[-1]), ATTEND_DEFAULT)
    return replace(launch, block_tokens=launch.block_tokens // 2) if like.element_size() == 4 else launch


def power_of_2(size: int, least: int = 1) -> int:
    """The smallest power of two of at least ``size`` and ``least``, itself a power of two."""
    return max(1 << max(size - 1, 0).bit_length(), least)


@functools.cache
def _on_cpu() -> bool:
    return os.environ.get(CPU_KERNELS_VARIABLE) == "1"


@functools.cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
