"""Start-up of the compression in a scheduler process: refusals, construction, handshake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from reasonalloc.profile import LayerProfile
from reasonserve import __version__
from reasonserve.engine import seams
from reasonserve.engine.compressor import Compressor
from reasonserve.engine.pool import OneTensorPool
from reasonserve.engine.settings import EngineSettings
from reasonserve.kv import PROMPT_MODES, Handshake, offered_methods

if TYPE_CHECKING:
    from sglang.srt.model_executor.model_runner import ModelRunner


def refusals(arguments: Any, runner: ModelRunner) -> list[str]:
    """Says why this engine cannot compress, with the remedy; empty when it can.

    Args:
        arguments: SGLang's resolved server arguments.
        runner: The model runner, its pools built.
    """
    pool = runner.token_to_kv_pool
    checks = (
        (runner.use_mla_backend, "the model uses MLA, whose cache has no heads; serve a multi-head or GQA model"),
        (runner.sliding_window_size is not None, "the model has sliding-window layers; serve one without"),
        (not isinstance(pool, OneTensorPool), f"the KV pool is {type(pool).__name__}; unset options that change it"),
        (arguments.page_size != 1, f"page_size is {arguments.page_size}; set it to 1"),
        (arguments.speculative_algorithm is not None, "speculative decoding is on; turn it off"),
        (arguments.disaggregation_mode != "null", "prefill-decode disaggregation is on; turn it off"),
        (arguments.enable_mixed_chunk, "enable_mixed_chunk is on; turn it off"),
        (arguments.tp_size != 1 or arguments.pp_size != 1, "tensor or pipeline parallelism is on; set both to 1"),
        (torch.device(runner.device).type != "cpu", f"the device is {runner.device}; this release is proven on cpu"),
    )
    return [reason for wrong, reason in checks if wrong]


def build_compressor(runner: ModelRunner) -> Compressor:
    """Builds the compressor of this process.

    Raises:
        RuntimeError: This engine cannot compress; SGLang's process ends with the message.
    """
    if reasons := refusals(runner.server_args, runner):
        raise RuntimeError(f"ReasonServe cannot bound the KV cache here: {'; '.join(reasons)}.")
    settings = EngineSettings.from_environment()
    pool: OneTensorPool = runner.token_to_kv_pool
    profile = None
    if settings.profile_json:
        profile = LayerProfile.from_json(settings.profile_json)
        profile.check_fits(pool.layer_num, pool.head_num, settings.model_fingerprint)
    num_heads = runner.model_config.num_attention_heads
    return Compressor(pool, runner.req_to_token_pool.req_to_token, num_heads, settings, profile)


def handshake(compressor: Compressor) -> Handshake:
    """Says what is in place in this process."""
    pool, profile = compressor.pool, compressor.profile
    return Handshake(
        plugin_version=__version__,
        seams=seams.applied(),
        num_layers=pool.layer_num,
        num_kv_heads=pool.head_num,
        head_dim=pool.head_dim,
        pool_slots=pool.size,
        bytes_per_slot=2 * pool.layer_num * pool.head_num * pool.head_dim * pool.store_dtype.itemsize,
        dtype=str(pool.store_dtype).removeprefix("torch."),
        model_fingerprint=compressor.settings.model_fingerprint,
        profile_id="" if profile is None else profile.profile_id,
        methods=offered_methods(profile is not None),
        prompt_modes=PROMPT_MODES,
    )
