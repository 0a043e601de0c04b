"""How much the newest queries attend to each candidate."""

from typing import Literal, get_args

import torch
from torch import Tensor

from reasonalloc.ops import launch
from reasonalloc.ops.observe import vectorized
from reasonalloc.shapes import check_axes, check_dtype

Scope = Literal["past", "causal"]
Group = Literal["max_logit", "max", "max_of_means", "mean"]


def window_attention(
    queries_RWQD: Tensor,
    keys_RHND: Tensor,
    lengths_RH: Tensor,
    *,
    window: int,
    scope: Scope = "past",
    group: Group = "max_logit",
) -> Tensor:
    """Mean attention of the observation window on each candidate.

    What scorers differ in is over which keys the softmax runs and how the query heads of a kv head become one:
    README.md says which published method takes which.

    Args:
        queries_RWQD: Floating point, after RoPE: the queries of the last ``W`` tokens, oldest first. Query heads
            ``h * G`` to ``h * G + G - 1`` share kv head ``h``.
        keys_RHND: Floating point, after RoPE, in order of true position. Computed in float32.
        lengths_RH: int64.
        window: Most recent candidates that are not past, at least 1.
        scope: ``past`` is a softmax over past candidates alone; ``causal`` one over all that a query could see.
        group: ``max_logit`` takes the greatest logit of the query heads; ``max`` the greatest weight of each query;
            ``max_of_means`` the greatest of the heads' means; ``mean`` the mean.

    Returns:
        ``[R, H, N]`` float32, not negative; zero on what no query sees, on padding and, with ``past``, in the window.

    Raises:
        ValueError: Shapes, dtypes or ranges are wrong.
    """
    sizes = check_axes(queries_RWQD=queries_RWQD, keys_RHND=keys_RHND, lengths_RH=lengths_RH)
    check_dtype(torch.int64, lengths_RH=lengths_RH)
    check_heads(sizes["Q"], sizes["H"])
    if sizes["W"] < 1 or window < 1:
        raise ValueError(f"{sizes['W']} queries and a window of {window}; give at least 1 of each")
    if scope not in get_args(Scope) or group not in get_args(Group):
        raise ValueError(f"scope is {scope!r} and group {group!r}; give one of {get_args(Scope)} and {get_args(Group)}")
    if launch.use_kernel(keys_RHND.device):
        from reasonalloc.ops.observe import kernel

        return kernel.window_attention(queries_RWQD, keys_RHND, lengths_RH, window=window, scope=scope, group=group)
    return vectorized.window_attention(queries_RWQD, keys_RHND, lengths_RH, window=window, scope=scope, group=group)


def check_heads(query_heads: int, kv_heads: int) -> None:
    """Checks that query heads share kv heads evenly.

    Raises:
        ValueError: They do not.
    """
    if kv_heads == 0 or query_heads % kv_heads:
        raise ValueError(f"{query_heads} query heads over {kv_heads} kv heads; give a multiple of the kv heads")
