"""Names of axes, and the checks that hold tensors to them.

A tensor's name ends in its axes, so ``keys_RHND`` is ``[rows, kv heads, candidates, head_dim]``:

    R   rows: any batch of (request, layer) pairs
    B   requests in a batch
    L   layers
    H   kv heads
    Q   query heads; ``G = Q / H`` of them share one kv head
    N   candidates per kv head, padded to the longest list
    K   kept candidates per kv head, padded to the longest list
    M   moves of one compaction
    D   head dimension
    W   window: the most recent queries, which score the candidates
    C   cells of a KV pool
    S   slots of one layer's KV pool
    T   rows of a cell table

Lists are ragged: row ``r``, head ``h`` owns the first ``lengths_RH[r, h]`` of its ``N`` places, in
order of true position. What lies behind them is padding; it is never read and may hold anything.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def valid_mask(lengths: Tensor, width: int) -> Tensor:
    """Marks the places of ragged lists that are not padding.

    Args:
        lengths: ``[...]`` int64.
        width: Number of places per list.

    Returns:
        ``[..., width]`` bool.
    """
    return torch.arange(width, device=lengths.device) < lengths[..., None]


def check_axes(**tensors_by_name: Tensor) -> Mapping[str, int]:
    """Checks that tensors agree on the sizes of the axes in their names.

    Args:
        **tensors_by_name: Tensors under names such as ``keys_RHND``.

    Returns:
        Size of each axis.

    Raises:
        ValueError: A tensor has another number of axes than its name, or an axis has two sizes.
    """
    sizes: dict[str, int] = {}
    for name, tensor in tensors_by_name.items():
        axes = name.rsplit("_", 1)[-1]
        if tensor.dim() != len(axes):
            raise ValueError(f"{name} has shape {list(tensor.shape)}; give one axis for each of {', '.join(axes)}")
        for axis, size in zip(axes, tensor.shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                raise ValueError(
                    f"{name} has shape {list(tensor.shape)}, so {axis} is {size}, but an earlier argument "
                    f"has {axis} {sizes[axis]}; give tensors that agree"
                )
    return sizes


def check_dtype(dtype: torch.dtype, **tensors_by_name: Tensor) -> None:
    """Checks that tensors have one dtype.

    Raises:
        ValueError: A tensor has another dtype.
    """
    for name, tensor in tensors_by_name.items():
        if tensor.dtype != dtype:
            raise ValueError(f"{name} is {tensor.dtype}; give {dtype}")
