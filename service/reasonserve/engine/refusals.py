"""What an engine refuses to start with, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from sglang.srt.model_executor.model_runner import ModelRunner

    from reasonserve.engine.settings import EngineSettings


def refusals(arguments: Any, runner: ModelRunner, settings: EngineSettings) -> list[str]:
    """Says why this engine cannot compress, with the remedy; empty when it can.

    Args:
        arguments: SGLang's resolved server arguments.
        runner: The model runner, its pools built.
        settings: What the replica asks for.
    """
    device = torch.device(runner.device).type
    pool, heads = runner.token_to_kv_pool, runner.model_config.get_total_num_kv_heads()
    checks = (
        (runner.use_mla_backend, "the model uses MLA, whose cache has no heads; serve a multi-head or GQA model"),
        (runner.sliding_window_size is not None, "the model has sliding-window layers; serve one without"),
        (not hasattr(pool, "k_cells"), f"the KV pool is {type(pool).__name__}; unset options that change it"),
        (
            runner.kv_cache_dtype != runner.dtype,
            f"the KV cache is {runner.kv_cache_dtype} and the model {runner.dtype}; set kv_cache_dtype to auto",
        ),
        (arguments.page_size != 1, f"page_size is {arguments.page_size}; set it to 1"),
        (arguments.speculative_algorithm is not None, "speculative decoding is on; turn it off"),
        (arguments.disaggregation_mode != "null", "prefill-decode disaggregation is on; turn it off"),
        (
            arguments.enable_mixed_chunk and device != "cpu",
            f"running requests may join the chunks of prompts on a cpu only, and the device is {device}; "
            "set engine.mixed_chunks to false",
        ),
        (
            heads % arguments.tp_size != 0,
            f"tp_size is {arguments.tp_size}, which does not divide the model's {heads} kv heads; set it to a divisor",
        ),
        (arguments.pp_size != 1, f"pp_size is {arguments.pp_size}; set it to 1"),
        (arguments.dp_size != 1, f"dp_size is {arguments.dp_size}; set it to 1 and run more replicas"),
        (device not in ("cpu", "cuda"), f"the device is {device}, which nothing here was written for; take cpu"),
        (
            device == "cuda" and not settings.allow_unproven_device,
            "the device is cuda, on which this release was never run; set engine.device to cpu, or "
            "engine.allow_unproven_device to true to try it",
        ),
    )
    return [reason for wrong, reason in checks if wrong]
