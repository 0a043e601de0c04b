"""The engine through the Triton kernels, in Triton's interpreter, against the operators that a CPU has of its own.

What a GPU would run is here as far as it can be without one: attention over cells, scores, routing, top-k and
compaction of a real SGLang are the kernels'.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from reasonalloc.ops.launch import CPU_KERNELS_VARIABLE

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
]

Results = dict[str, Any]

TOKENS = 52
BUDGET, BUFFER = 32, 16
KV = {
    "pinned": {"method": "r-kv"},
    "evictable": {"method": "reasonalloc", "prompt_mode": "evictable"},
}
INTERPRETED = {"TRITON_INTERPRET": "1", CPU_KERNELS_VARIABLE: "1"}


@pytest.fixture(scope="module")
def outputs(run_job: Callable[[dict[str, Any]], Results], pytestconfig: pytest.Config) -> tuple[Results, Results]:
    """The same requests through the kernels and through the CPU's own operators."""
    size = {"budget_tokens": BUDGET, "buffer_tokens": BUFFER}
    wave = [
        {"id": name, "input_ids": list(range(60 + n, 92 + n)), "sampling": {"max_new_tokens": TOKENS}, "kv": kv | size}
        for n, (name, kv) in enumerate(KV.items())
    ]
    model = str(pytestconfig.rootpath / "tests" / "data" / "pointer-chaser")
    job = {"engine": "reasonserve", "model": model, "dtype": "float32", "pool_slots": 512, "waves": [wave]}
    job |= {"context_length": 96, "table_cells": 64}  # the interpreter takes time for empty places too
    with ThreadPoolExecutor(2) as pool:
        interpreted, own = pool.map(run_job, ({**job, "environment": INTERPRETED}, job))
    return interpreted, own


@pytest.mark.parametrize(("name", "rounds"), [("pinned", 1), ("evictable", 3)])
def test_the_kernels_give_the_same_tokens(outputs: tuple[Results, Results], name: str, rounds: int) -> None:
    interpreted, own = (results[name] for results in outputs)
    assert len(interpreted["token_ids"]) == TOKENS
    assert interpreted["token_ids"] == own["token_ids"]
    assert len(interpreted["kv"]["rounds"]) == rounds
    for figure in ("output_tokens", "kept_cells", "evicted_cells", "layer_budgets", "head_min", "head_max"):
        assert [r[figure] for r in interpreted["kv"]["rounds"]] == [r[figure] for r in own["kv"]["rounds"]]


def test_the_engines_say_what_they_run(outputs: tuple[Results, Results]) -> None:
    assert [results["handshake"]["kernels"] for results in outputs] == [True, False]


def test_nothing_leaks(outputs: tuple[Results, Results]) -> None:
    assert [results["used_slots"] for results in outputs] == [0, 0]
