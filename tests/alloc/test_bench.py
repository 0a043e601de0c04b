"""The benchmark's command line; what it measures is for whoever runs it."""

import json
import subprocess
import sys

import pytest
import torch

from reasonalloc.bench.rounds import Rounds
from reasonalloc.methods import NAMED_METHODS


def bench(*arguments):
    command = [sys.executable, "-m", "reasonalloc.bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def rounds():
    return Rounds()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so_and_exits_2():
    result = bench("gpu")
    assert result.returncode == 2
    assert result.stderr.startswith("No CUDA device: run this on a machine with an NVIDIA GPU")
    assert result.stdout == ""


def test_another_device_is_refused():
    result = bench("tpu")
    assert result.returncode == 2
    assert "invalid choice: 'tpu'" in result.stderr


@pytest.mark.parametrize("name", NAMED_METHODS)
def test_a_round_of_every_named_method_can_be_timed(rounds, name):
    """It keeps the budget in the slots that stay: every key of the request's was in the pool before."""
    before = {tuple(key) for key in rounds.k_pool[:, :2].tolist()}
    rounds.run(NAMED_METHODS[name])
    assert {tuple(key) for key in rounds.k_pool[:, :2].tolist()} <= before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device to measure")
def test_on_a_gpu_it_prints_one_table(tmp_path):
    result = bench("gpu", "--json", str(tmp_path / "figures.json"))
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert {"copy", "attend_cells, skew 8:1", "score", "compact"} <= {timing["what"] for timing in figures["timings"]}
