"""The checks that the GPU benchmark runs before it times anything."""

import pytest
import torch

from reasonalloc.bench import gpu
from reasonalloc.bench.checks import CHECKS


@pytest.mark.parametrize("name", CHECKS)
def test_passes(device, name):
    CHECKS[name](device)


@pytest.mark.parametrize(
    ("name", "op", "function"),
    [
        ("attend_cells", "attend", "attend_cells"),
        ("score", "observe", "window_attention"),
        ("score", "redundancy", "mean_cosine"),
        ("route, keep and split", "keep", "keep_top"),
    ],
)
def test_fails_if_a_kernel_is_wrong(device, monkeypatch, name, op, function):
    kernel = __import__(f"reasonalloc.ops.{op}.kernel", fromlist=[function])
    right = getattr(kernel, function)

    def wrong(*args, **kwargs):
        out = right(*args, **kwargs)
        out.view(-1)[0] = out.view(-1)[0] == 0 if out.dtype == torch.bool else out.view(-1)[0] + 1
        return out

    monkeypatch.setattr(kernel, function, wrong)
    with pytest.raises(AssertionError):
        CHECKS[name](device)


def test_what_is_timed_runs(device, monkeypatch):
    """At a size that the interpreter manages; bytes are those that a call has to move."""
    small = {"BATCH": 1, "MEAN_CELLS": 12, "PREFIX": 3, "TAIL": 2, "HEADS": 2, "HEAD_DIM": 16, "DTYPE": torch.float32}
    small |= {"REQUESTS": 2, "LAYERS": 1, "BUDGET": 10, "BUFFER": 4, "WINDOW": 2}
    for name, value in small.items():
        monkeypatch.setattr(gpu, name, value)
    moved = {}
    for calls in (gpu.attention_calls, gpu.round_calls):
        for what, call, moved_bytes in calls(device):
            call()
            moved[what] = moved_bytes
    assert moved["attend_cells, skew 1:1"] == 2 * 1 * 2 * 12 * 16 * 4
    assert moved["attend_segments, skew 1:1, 3 prefix, 2 tail"] == 2 * 1 * 2 * 17 * 16 * 4
    assert moved["gather keys"] == 2 * moved["score"] == 2 * 2 * 1 * 2 * 14 * 16 * 4


def test_the_table_shows_rates_and_floors():
    timing = gpu.Timing("score", 2.0, 1.5, 3.0, 4 * 10**9, 0.5)
    header, line = gpu.table([timing]).splitlines()[-2:]
    assert header.split()[-6:] == ["slowest", "GB/s", "floor", "ms", "x", "floor"]
    assert line.split() == ["score", "2.000", "1.500", "3.000", "2000", "0.500", "4.00"]
