"""SGLang's entry point into ReasonServe: registers the attention backend and the hooks.

SGLang swallows what goes wrong here and would serve uncompressed; ``Handshake`` is how a replica notices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from reasonserve.engine import seams
from reasonserve.engine.mixed import MixedPrefill, draw_at_true_positions, set_true_positions
from reasonserve.engine.pressure import relieve
from reasonserve.engine.sampling import multinomial_with_seed, sample_with_min_p, scale_repeated
from reasonserve.kv import BUDGET_KEY_PREFIX, HANDSHAKE_KEY

if TYPE_CHECKING:
    from sglang.srt.layers.attention.hybrid_attn_backend import HybridAttnBackend
    from sglang.srt.managers.io_struct import SetInternalStateReq
    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
    from sglang.srt.managers.scheduler import Scheduler
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch
    from sglang.srt.model_executor.model_runner import ModelRunner
    from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo

    from reasonserve.engine.attention import CellAttention
    from reasonserve.engine.compressor import Compressor

_compressor: Compressor | None = None
"""This process's compressor; set when SGLang builds the attention backend, None in processes without a model."""


def install() -> None:
    """Registers everything; SGLang calls it once in each of its processes."""
    from sglang.srt.layers.attention.attention_registry import register_attention_backend

    register_attention_backend("reasonalloc")(_create_attention)
    seams.register(
        {
            seams.POOL: _use_one_tensor_pool,
            seams.PREFILL: _admit_after_prefill_is_laid_out,
            seams.ADMIT: _reserve_bounded_footprint,
            seams.RESERVED: _count_bounded_growth,
            seams.ADMIT_CHUNK: _reserve_bounded_footprint,
            seams.ROUNDS: _round_before_memory_check,
            seams.MIXED_ROUNDS: _round_before_mixing,
            seams.MIXED_ATTENTION: _share_prefill,
            seams.MIXED_DRAW: draw_at_true_positions,
            seams.BUDGETS: _set_budgets,
            seams.DECODE: _report_before_decode,
            seams.POSITIONS: _use_true_positions,
            seams.SEEDS: _keep_seeds,
            seams.SEEDED_DRAW: multinomial_with_seed,
            seams.MIN_P: sample_with_min_p,
            seams.REPETITION: scale_repeated,
            seams.RELEASE: _release_rows,
            seams.HANDSHAKE: _add_handshake,
        }
    )


def _create_attention(runner: ModelRunner) -> CellAttention:
    from reasonserve.engine.attention import CellAttention
    from reasonserve.engine.setup import build_compressor

    global _compressor
    _compressor = build_compressor(runner)
    return CellAttention(_compressor)


def _use_one_tensor_pool(result: type, *_: Any, kind: str, **__: Any) -> type | None:
    from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool

    from reasonserve.engine.pool import OneTensorPool

    return OneTensorPool if kind == "mha" and result is MHATokenToKVPool else None


def _admit_after_prefill_is_laid_out(_: None, batch: ScheduleBatch, *__: Any, **___: Any) -> None:
    if _compressor is not None:
        _compressor.after_prefill_layout(batch)


def _reserve_bounded_footprint(add_req: Callable[..., Any], adder: Any, req: Req, *rest: Any, **more: Any) -> Any:
    if _compressor is None:
        return add_req(adder, req, *rest, **more)
    sampling, asked = req.sampling_params, req.sampling_params.max_new_tokens
    # SGLang reserves max_new_tokens - len(output_ids); it reads nothing else of them here.
    sampling.max_new_tokens = len(req.output_ids) + _compressor.growth_left(req)
    try:
        return add_req(adder, req, *rest, **more)
    finally:
        sampling.max_new_tokens = asked


def _count_bounded_growth(offset: Callable[..., float], adder: Any, req: Req) -> float:
    """A bounded request will take what is left of its footprint, so no estimate of its length applies."""
    if _compressor is None or not _compressor.state_of(req).compressible:
        return offset(adder, req)
    return _compressor.growth_left(req)


def _round_before_memory_check(scheduler: Scheduler, batch: ScheduleBatch, *_: Any, **__: Any) -> None:
    if _compressor is not None:
        _compressor.run_due_rounds(batch)
        relieve(_compressor, batch, has_queue=bool(scheduler.waiting_queue))


def _round_before_mixing(batch: ScheduleBatch, *_: Any, **__: Any) -> None:
    if _compressor is not None and _compressor.mixes_chunks:
        _compressor.run_due_rounds(batch)


def _share_prefill(_: None, backend: HybridAttnBackend, *__: Any, **___: Any) -> None:
    if _compressor is not None and _compressor.mixes_chunks:
        backend.prefill_backend = MixedPrefill(backend.prefill_backend, backend.decode_backend, _compressor)


def _set_budgets(set_state: Callable[..., Any], scheduler: Scheduler, request: SetInternalStateReq) -> Any:
    """Takes new budgets of running requests, which come the way of SGLang's own settings; others go on to SGLang."""
    from sglang.srt.managers.io_struct import SetInternalStateReqOutput

    wanted = request.server_args
    if _compressor is None or not all(key.startswith(BUDGET_KEY_PREFIX) for key in wanted):
        return set_state(scheduler, request)
    by_id = {req.rid: req for req in (*scheduler.waiting_queue, *scheduler.collect_inflight_reqs())}
    if (chunked := scheduler.chunked_req) is not None:
        by_id[chunked.rid] = chunked
    found = {by_id.get(key.removeprefix(BUDGET_KEY_PREFIX)): int(value) for key, value in wanted.items()}
    taken = [req is not None and _compressor.set_budget(req, budget) for req, budget in found.items()]
    scheduler.running_batch.batch_is_full = False  # lower budgets make room; SGLang looks at its queue again
    return SetInternalStateReqOutput(updated=all(taken))


def _report_before_decode(batch: ScheduleBatch, *_: Any, **__: Any) -> None:
    if _compressor is not None:
        _compressor.before_decode(batch)


def _use_true_positions(result: ForwardBatch, _: type, batch: ScheduleBatch, *__: Any, **___: Any) -> None:
    if _compressor is None:
        return
    _compressor.running_in_prefill = 0
    if result.forward_mode.is_decode():
        result.positions = (result.orig_seq_lens - 1).clamp(min=0).to(result.positions.dtype)
    elif result.forward_mode.is_mixed():
        _compressor.running_in_prefill = len(batch.decoding_reqs)
        set_true_positions(result, running=len(batch.decoding_reqs))


def _keep_seeds(result: SamplingBatchInfo, _: type, batch: ScheduleBatch, *__: Any, **___: Any) -> None:
    seeds = [req.sampling_params.sampling_seed or 0 for req in batch.reqs]
    result.sampling_seed = torch.tensor(seeds, dtype=torch.int64, device=result.temperatures.device)


def _release_rows(req: Req, *_: Any, **__: Any) -> None:
    if _compressor is not None:
        _compressor.release(req)


def _add_handshake(result: dict[str, Any], scheduler: Scheduler) -> dict[str, Any]:
    from reasonserve.engine.setup import handshake

    if _compressor is not None:
        result[HANDSHAKE_KEY] = asdict(handshake(_compressor))
    return result
