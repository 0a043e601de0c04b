"""Start-up of the compression in a scheduler process: construction and handshake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reasonalloc.ops import launch
from reasonalloc.profile import LayerProfile
from reasonserve import __version__
from reasonserve.engine import seams
from reasonserve.engine.compressor import Compressor
from reasonserve.engine.pool import OneTensorPool
from reasonserve.engine.ranks import RankAgreement
from reasonserve.engine.refusals import refusals
from reasonserve.engine.rounds import compile_rounds
from reasonserve.engine.settings import EngineSettings
from reasonserve.kv import PROMPT_MODES, Handshake, offered_methods

if TYPE_CHECKING:
    from sglang.srt.model_executor.model_runner import ModelRunner


def build_compressor(runner: ModelRunner) -> Compressor:
    """Builds the compressor of this process.

    Raises:
        RuntimeError: This engine cannot compress; SGLang's process ends with the message.
    """
    from sglang.srt.runtime_context import get_parallel

    settings = EngineSettings.from_environment()
    if reasons := refusals(runner.server_args, runner, settings):
        raise RuntimeError(f"ReasonServe cannot bound the KV cache here: {'; '.join(reasons)}.")
    pool: OneTensorPool = runner.token_to_kv_pool
    profile = None
    if settings.profile_json:
        profile = LayerProfile.from_json(settings.profile_json)
        profile.check_fits(pool.layer_num, runner.model_config.get_total_num_kv_heads(), settings.model_fingerprint)
    ranks = get_parallel()
    num_heads = runner.model_config.num_attention_heads // ranks.tp_size
    compile_rounds(pool.k_cells)
    agreement = RankAgreement(ranks.tp_group.cpu_group, ranks.tp_size, rank=ranks.tp_rank)
    return Compressor(
        pool,
        runner.req_to_token_pool.req_to_token,
        num_heads,
        settings,
        profile,
        agreement,
        mixes_chunks=runner.server_args.enable_mixed_chunk,
    )


def handshake(compressor: Compressor) -> Handshake:
    """Says what is in place in this process."""
    pool, profile = compressor.pool, compressor.profile
    num_kv_heads = pool.head_num * compressor.agreement.num_ranks
    return Handshake(
        plugin_version=__version__,
        seams=seams.applied(),
        num_layers=pool.layer_num,
        num_kv_heads=num_kv_heads,
        head_dim=pool.head_dim,
        pool_slots=pool.size,
        bytes_per_slot=2 * pool.layer_num * num_kv_heads * pool.head_dim * pool.store_dtype.itemsize,
        dtype=str(pool.store_dtype).removeprefix("torch."),
        model_fingerprint=compressor.settings.model_fingerprint,
        profile_id="" if profile is None else profile.profile_id,
        methods=offered_methods(profile.parts if profile else ()),
        prompt_modes=PROMPT_MODES,
        kernels=launch.use_kernel(pool.k_cells.device),
    )
