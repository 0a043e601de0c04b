"""What an engine refuses to start with: each option by itself, with its remedy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from reasonserve.engine.refusals import refusals
from reasonserve.engine.settings import EngineSettings

ARGUMENTS = {
    "page_size": 1,
    "speculative_algorithm": None,
    "disaggregation_mode": "null",
    "enable_mixed_chunk": False,
    "tp_size": 1,
    "pp_size": 1,
    "dp_size": 1,
}
RUNNER = {
    "use_mla_backend": False,
    "sliding_window_size": None,
    "device": "cpu",
    "dtype": torch.bfloat16,
    "kv_cache_dtype": torch.bfloat16,
    "model_config": SimpleNamespace(get_total_num_kv_heads=lambda: 6),
}


def refused(**change: Any) -> list[str]:
    """The refusals of an engine that is fit for compression but for a change."""
    pool = change.pop("token_to_kv_pool", SimpleNamespace(k_cells=None))
    arguments = SimpleNamespace(**{key: change.get(key, value) for key, value in ARGUMENTS.items()})
    runner = SimpleNamespace(**{key: change.get(key, value) for key, value in RUNNER.items()}, token_to_kv_pool=pool)
    settings = EngineSettings(allow_unproven_device=change.get("allow_unproven_device", False))
    return refusals(arguments, cast(Any, runner), settings)


def test_what_is_fit_is_not_refused() -> None:
    assert refused() == []
    assert refused(tp_size=3) == []
    assert refused(enable_mixed_chunk=True) == []
    assert refused(device="cuda", allow_unproven_device=True) == []


@pytest.mark.parametrize(
    ("change", "said", "remedy"),
    [
        ({"use_mla_backend": True}, "MLA", "serve a multi-head or GQA model"),
        ({"sliding_window_size": 4096}, "sliding-window", "serve one without"),
        ({"token_to_kv_pool": object()}, "the KV pool is object", "unset options that change it"),
        ({"kv_cache_dtype": torch.float8_e4m3fn}, "the KV cache is torch.float8_e4m3fn", "set kv_cache_dtype to auto"),
        ({"page_size": 16}, "page_size is 16", "set it to 1"),
        ({"speculative_algorithm": "EAGLE"}, "speculative decoding is on", "turn it off"),
        ({"disaggregation_mode": "decode"}, "prefill-decode disaggregation is on", "turn it off"),
        (
            {"enable_mixed_chunk": True, "device": "cuda", "allow_unproven_device": True},
            "on a cpu only, and the device is cuda",
            "set engine.mixed_chunks to false",
        ),
        ({"tp_size": 4}, "tp_size is 4, which does not divide the model's 6 kv heads", "set it to a divisor"),
        ({"pp_size": 2}, "pp_size is 2", "set it to 1"),
        ({"dp_size": 2}, "dp_size is 2", "run more replicas"),
        ({"device": "cuda"}, "the device is cuda, on which this release was never run", "engine.allow_unproven_device"),
        ({"device": "xpu", "allow_unproven_device": True}, "the device is xpu", "take cpu"),
    ],
)
def test_each_refusal_says_what_is_wrong_and_what_to_do(change: dict[str, Any], said: str, remedy: str) -> None:
    (reason,) = refused(**change)
    assert said in reason
    assert remedy in reason
