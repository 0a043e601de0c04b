"""The engine on a GPU: with CUDA graphs as without, and as on a CPU where no round runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.engine,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

Results = dict[str, Any]

TOKENS = 160
SMALL = {"budget_tokens": 48, "buffer_tokens": 16}
KV = {
    "full": {"method": "full", "budget_tokens": 0},
    "ample": {"method": "reasonalloc", "budget_tokens": 1024},
    "pinned": {"method": "reasonalloc", **SMALL},
    "evictable": {"method": "lava", "prompt_mode": "evictable", **SMALL},
    "uniform": {"method": "r-kv", **SMALL},
}
"""Five requests, so that the captured batch of eight has padding."""
BOUNDED = ("pinned", "evictable", "uniform")


@pytest.fixture(scope="module")
def run(run_job: Callable[[dict[str, Any]], Results], pytestconfig: pytest.Config) -> Callable[..., Results]:
    """Runs all requests together, and one again alone, where nothing is padded."""
    model = str(pytestconfig.rootpath / "tests" / "data" / "pointer-chaser")
    prompt = list(range(100, 140))
    wave = [
        {"id": name, "input_ids": [60 + n, *prompt], "sampling": {"max_new_tokens": TOKENS}, "kv": kv}
        for n, (name, kv) in enumerate(KV.items())
    ]
    alone = {**wave[2], "id": "alone"}
    job = {"engine": "reasonserve", "model": model, "dtype": "float32", "pool_slots": 1200, "context_length": 512}

    def start(device: str, **arguments: Any) -> Results:
        where = {"device": device, "allow_unproven_device": True, "arguments": arguments}
        if device == "cpu":  # SGLang takes another platform where it sees a GPU
            where["environment"] = {"CUDA_VISIBLE_DEVICES": ""}
        return run_job({**job, **where, "waves": [wave, [alone]]})

    return start


@pytest.fixture(scope="module")
def graphs(run: Callable[..., Results]) -> Results:
    return run("cuda")


@pytest.fixture(scope="module")
def eager(run: Callable[..., Results]) -> Results:
    return run("cuda", disable_cuda_graph=True)


@pytest.fixture(scope="module")
def on_cpu(run: Callable[..., Results]) -> Results:
    return run("cpu")


@pytest.mark.parametrize("name", [*KV, "alone"])
def test_a_captured_step_gives_the_tokens_of_an_eager_one(graphs: Results, eager: Results, name: str) -> None:
    assert len(graphs[name]["token_ids"]) == TOKENS
    assert graphs[name]["token_ids"] == eager[name]["token_ids"]
    for figure in ("kept_cells", "evicted_cells", "layer_budgets", "head_min", "head_max"):
        found = [[r[figure] for r in results[name]["kv"]["rounds"]] for results in (graphs, eager)]
        assert found[0] == found[1]


@pytest.mark.parametrize("name", BOUNDED)
def test_rounds_run_on_the_gpu(graphs: Results, name: str) -> None:
    assert len(graphs[name]["kv"]["rounds"]) >= 5


@pytest.mark.parametrize("name", ["full", "ample"])
def test_without_rounds_the_tokens_are_those_of_a_cpu(graphs: Results, on_cpu: Results, name: str) -> None:
    assert graphs[name]["kv"]["rounds"] == []
    assert graphs[name]["token_ids"] == on_cpu[name]["token_ids"]


def test_the_kernels_run(graphs: Results, eager: Results, on_cpu: Results) -> None:
    assert [results["handshake"]["kernels"] for results in (graphs, eager, on_cpu)] == [True, True, False]


def test_nothing_leaks(graphs: Results, eager: Results) -> None:
    assert [graphs["used_slots"], eager["used_slots"]] == [0, 0]
