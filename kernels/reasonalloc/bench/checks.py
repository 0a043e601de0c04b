"""Every kernel against its reference, on small inputs with poisoned padding. Nothing is timed before these pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reasonalloc.ops.attend import Segments
from reasonalloc.ops.attend import kernel as attend_kernel
from reasonalloc.ops.attend import reference as attend_reference
from reasonalloc.ops.compact import kernel as compact_kernel
from reasonalloc.ops.compact import reference as compact_reference
from reasonalloc.ops.keep import kernel as keep_kernel
from reasonalloc.ops.keep import reference as keep_reference
from reasonalloc.ops.observe import kernel as observe_kernel
from reasonalloc.ops.observe import reference as observe_reference
from reasonalloc.ops.redundancy import kernel as redundancy_kernel
from reasonalloc.ops.redundancy import reference as redundancy_reference
from reasonalloc.ops.route import kernel as route_kernel
from reasonalloc.ops.route import reference as route_reference
from reasonalloc.ops.score import kernel as score_kernel
from reasonalloc.ops.score import reference as score_reference
from reasonalloc.ops.split import kernel as split_kernel
from reasonalloc.ops.split import reference as split_reference
from reasonalloc.shapes import valid_mask

ROWS, HEADS, GROUP, WIDTH, WINDOW = 3, 2, 3, 130, 8
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
POISON = -(2**40)


class Inputs:
    """Seeded inputs on the CPU; the first list is full, the second empty."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def lengths(self, rows: int = ROWS) -> Tensor:
        """``[rows, HEADS]`` lengths up to ``WIDTH``."""
        lengths = torch.randint(0, WIDTH + 1, (rows, HEADS), generator=self.generator)
        lengths.view(-1)[:2] = torch.tensor([WIDTH, 0])
        return lengths

    def normal(self, *shape: int) -> Tensor:
        """Standard normal values."""
        return torch.randn(shape, generator=self.generator)

    def cells(self, lengths: Tensor) -> Tensor:
        """Distinct cells of a pool of ``lengths.numel() * WIDTH``."""
        cells = torch.randperm(lengths.numel() * WIDTH, generator=self.generator).view(*lengths.shape, WIDTH)
        return cells.masked_fill(~valid_mask(lengths, WIDTH), POISON)


def check_attend_cells(device: torch.device) -> None:
    """Attention over lists of cells."""
    for dtype, head_dim in ((torch.float32, 96), (torch.bfloat16, 128)):
        inputs = Inputs(head_dim)
        lengths = inputs.lengths()
        k, v = (inputs.normal(lengths.numel() * WIDTH, head_dim).to(dtype) for _ in range(2))
        queries = inputs.normal(ROWS, HEADS * GROUP, head_dim).to(dtype)
        arguments = queries, k, v, inputs.cells(lengths), lengths, head_dim**-0.5
        expected = attend_reference.attend_cells(*arguments)
        out = attend_kernel.attend_cells(*_moved(device, *arguments))
        _assert_close(out, expected)


def check_attend_segments(device: torch.device) -> None:
    """Attention over prefix, owned and tail of compressed and dense requests, in the second of two layers."""
    inputs, num_slots, head_dim, owned = Inputs(1), 200, 64, 40
    slots = torch.randperm(num_slots, generator=inputs.generator)[:150].view(3, 50).int()
    owned_TLH = torch.randint(0, owned + 1, (2, 2, HEADS), generator=inputs.generator)
    tensors = {
        "slots_RN": slots,
        "slot_rows_B": torch.tensor([2, 0, 1]),
        "prefix_B": torch.tensor([5, 50, 0]),
        "tail_start_B": torch.tensor([45, 50, 40]),
        "tail_end_B": torch.tensor([50, 50, 40]),
        "cells_TLHK": torch.randint(0, 2 * num_slots * HEADS, (2, 2, HEADS, owned), generator=inputs.generator),
        "owned_TLH": owned_TLH,
        "table_rows_B": torch.tensor([1, -1, 0]),
    }
    k, v = (inputs.normal(2 * num_slots * HEADS, head_dim) for _ in range(2))
    queries = inputs.normal(3, HEADS * GROUP, head_dim)
    expected = attend_reference.attend_segments(
        queries, k, v, Segments(**tensors, num_slots=num_slots), layer=1, scale=0.125
    )
    on_device = Segments(**{name: value.to(device) for name, value in tensors.items()}, num_slots=num_slots)
    out = attend_kernel.attend_segments(*_moved(device, queries, k, v, on_device), layer=1, scale=0.125)
    _assert_close(out, expected)


def check_compact(device: torch.device) -> None:
    """Moves and table of three requests; random marks, so holes and movers do not add up."""
    inputs = Inputs(2)
    lengths = inputs.lengths(rows=5)
    k, v = (inputs.normal(lengths.numel() * WIDTH, 96) for _ in range(2))
    marks = (inputs.normal(5, HEADS, WIDTH) > 0 for _ in range(2))
    arguments: list[Any] = [inputs.cells(lengths), lengths, *marks, torch.tensor([1, 0, 2, 1, 0]), 3]
    pools = _moved(device, k, v)
    done = compact_kernel.compact_cells(*[*pools, *_moved(device, *arguments)])
    expected = compact_reference.compact_cells(*[k, v, *arguments])
    _assert_equal(done.cells_RHN, expected.cells_RHN)
    _assert_equal(done.lengths_RH, expected.lengths_RH)
    _assert_equal(done.unmatched_B, expected.unmatched_B)
    for pool, expected_pool in zip(pools, (k, v), strict=True):
        _assert_equal(pool, expected_pool)


def check_score(device: torch.device) -> None:
    """Scores of keys that share a direction, so that many are near-duplicates."""
    for dtype in (torch.float32, torch.bfloat16):
        inputs = Inputs(3)
        lengths = inputs.lengths()
        keys = (inputs.normal(ROWS, HEADS, WIDTH, 128) + 0.8).masked_fill(
            ~valid_mask(lengths, WIDTH)[..., None], torch.nan
        )
        arguments = inputs.normal(ROWS, WINDOW, HEADS * GROUP, 128).to(dtype), keys.to(dtype), lengths
        redundancy: dict[str, Any] = {"threshold": 0.5, "spare_first": False}
        options = redundancy | {"mix": 0.1, "pool": 7, "length_free": True}
        expected = score_reference.rkv_score(*arguments, window=WINDOW)
        _assert_close(score_kernel.rkv_score(*_moved(device, *arguments), window=WINDOW, **options), expected)
        expected = redundancy_reference.mean_cosine(*arguments[1:], spare_first=True)
        redundancy["spare_first"] = True
        _assert_close(redundancy_kernel.mean_cosine(*_moved(device, *arguments[1:]), **redundancy), expected)
        for group in ("max", "max_of_means", "mean"):
            variant: dict[str, Any] = {"window": WINDOW, "scope": "causal", "group": group}
            expected = observe_reference.window_attention(*arguments, **variant)
            _assert_close(observe_kernel.window_attention(*_moved(device, *arguments), **variant), expected)


def check_decisions(device: torch.device) -> None:
    """Route, keep and split: integers, with ties."""
    inputs = Inputs(4)
    lengths = inputs.lengths()
    scores = inputs.normal(ROWS, HEADS, WIDTH).round().masked_fill(~valid_mask(lengths, WIDTH), torch.nan)
    budget = lengths.sum(dim=1) // 3
    rules: dict[str, Any] = {"power": 0.5, "floor": 0.25, "ceiling": 2.0, "min_cells": 4}
    counts = route_reference.route_heads(scores, lengths, budget, **rules)
    _assert_equal(route_kernel.route_heads(*_moved(device, scores, lengths, budget), **rules), counts)
    kept = keep_reference.keep_top(scores, lengths, counts)
    _assert_equal(keep_kernel.keep_top(*_moved(device, scores, lengths, counts)), kept)
    weights = torch.exp(inputs.normal(9, 30).double() * 9)
    lower, room = (torch.randint(0, 99, (9, 30), generator=inputs.generator) for _ in range(2))
    arguments = weights, lower.sum(dim=1) + room.sum(dim=1) // 3, lower, lower + room
    _assert_equal(split_kernel.split_rows(*_moved(device, *arguments)), split_reference.split_rows(*arguments))


CHECKS: dict[str, Callable[[torch.device], None]] = {
    "attend_cells": check_attend_cells,
    "attend_segments": check_attend_segments,
    "compact": check_compact,
    "score": check_score,
    "route, keep and split": check_decisions,
}


def _moved(device: torch.device, *values: Any) -> list[Any]:
    """Copies on the device of what is a tensor."""
    return [value.to(device, copy=True) if isinstance(value, Tensor) else value for value in values]


def _assert_close(out: Tensor, expected: Tensor) -> None:
    tolerance = TOLERANCES[expected.dtype]
    torch.testing.assert_close(out.cpu(), expected, rtol=tolerance, atol=tolerance)


def _assert_equal(out: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(out.cpu(), expected, rtol=0, atol=0)
