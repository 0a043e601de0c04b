"""What each candidate of each kv head is worth."""

import torch
from torch import Tensor

from reasonalloc.ops import launch
from reasonalloc.ops.observe import check_heads
from reasonalloc.ops.score import vectorized
from reasonalloc.shapes import check_axes, check_dtype


def rkv_score(
    queries_RWQD: Tensor,
    keys_RHND: Tensor,
    lengths_RH: Tensor,
    *,
    window: int,
    mix: float = 0.1,
    pool: int = 7,
    threshold: float = 0.5,
    length_free: bool = True,
    spare_first: bool = False,
) -> Tensor:
    """Scores candidates by importance against redundancy.

    R-KV (arXiv 2505.24133), section 3; README.md has the formulas and where we differ from the
    released code. The last ``window`` candidates of a list are always worth keeping.

    Args:
        queries_RWQD: Floating point, after RoPE: the queries of the last tokens. Query heads
            ``h * G`` to ``h * G + G - 1`` share kv head ``h``.
        keys_RHND: Floating point, after RoPE, in order of true position. Computed in float32.
        lengths_RH: int64.
        window: Most recent candidates that are exempt, at least 1.
        mix: Weight of importance; redundancy has the rest.
        pool: Odd width of the max-pool over importance.
        threshold: Cosine above which two keys are near-duplicates.
        length_free: Multiply by the number of past candidates. Both terms are softmax-normalised, so
            without it a shorter list scores higher, and scores of different heads do not compare.
        spare_first: Let a key without near-duplicates exempt key 0, as the released code does.

    Returns:
        ``[R, H, N]`` float32; ``+inf`` in the window, ``-inf`` on padding, finite elsewhere. A list
        no longer than the window is all window.

    Raises:
        ValueError: Shapes, dtypes or ranges are wrong.
    """
    _check(queries_RWQD, keys_RHND, lengths_RH, window, mix, pool, threshold)
    run = vectorized.rkv_score
    if launch.use_kernel(keys_RHND.device):
        from reasonalloc.ops.score import kernel

        run = kernel.rkv_score
    return run(
        queries_RWQD,
        keys_RHND,
        lengths_RH,
        window=window,
        mix=mix,
        pool=pool,
        threshold=threshold,
        length_free=length_free,
        spare_first=spare_first,
    )


def _check(
    queries_RWQD: Tensor,
    keys_RHND: Tensor,
    lengths_RH: Tensor,
    window: int,
    mix: float,
    pool: int,
    threshold: float,
) -> None:
    sizes = check_axes(queries_RWQD=queries_RWQD, keys_RHND=keys_RHND, lengths_RH=lengths_RH)
    check_dtype(torch.int64, lengths_RH=lengths_RH)
    check_heads(sizes["Q"], sizes["H"])
    if sizes["W"] < 1 or window < 1:
        raise ValueError(f"{sizes['W']} queries and a window of {window}; give at least 1 of each")
    if not 0 <= mix <= 1:
        raise ValueError(f"mix is {mix}; give 0 to 1")
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold is {threshold}; give 0 up to, not including, 1")
    if pool < 1 or pool % 2 == 0:
        raise ValueError(f"pool is {pool}; give an odd width of at least 1")
