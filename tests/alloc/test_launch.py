"""Where kernels run, and the launch table."""

import importlib.util

import pytest
import torch

from reasonalloc.ops import launch


def test_kernels_run_on_cuda_where_triton_is_installed(monkeypatch):
    has_triton = importlib.util.find_spec("triton") is not None
    assert launch.use_kernel(torch.device("cuda")) is has_triton
    assert not launch.use_kernel(torch.device("cpu"))
    monkeypatch.setattr(launch, "_has_triton", lambda: False)
    assert not launch.use_kernel(torch.device("cuda"))


def test_kernels_run_on_the_cpu_for_those_who_ask(monkeypatch):
    monkeypatch.setattr(launch, "_has_triton", lambda: True)
    monkeypatch.setattr(launch, "_on_cpu", lambda: True)
    assert launch.use_kernel(torch.device("cpu"))
    assert not launch.use_kernel(torch.device("meta"))


@pytest.mark.parametrize("how", [launch.ATTEND_DEFAULT, *launch.ATTEND.values()])
def test_launches_fit_together(how):
    """A chunk is whole steps, also of half as many tokens; tl.dot takes at least 16; the merge loads all splits."""
    assert how.block_tokens // 2 >= 16
    assert how.chunk_tokens % how.block_tokens == 0
    assert how.splits == launch.power_of_2(how.splits)


def test_wide_dtypes_take_fewer_tokens():
    half, single = (launch.attend_launch(torch.zeros(1, 1, 128, dtype=t)) for t in (torch.bfloat16, torch.float32))
    assert single.block_tokens * 2 == half.block_tokens == launch.ATTEND_DEFAULT.block_tokens


@pytest.mark.parametrize(("size", "least", "expected"), [(0, 1, 1), (1, 1, 1), (3, 1, 4), (64, 16, 64), (5, 16, 16)])
def test_power_of_2(size, least, expected):
    assert launch.power_of_2(size, least) == expected
