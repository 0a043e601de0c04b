"""Every place where ReasonServe touches SGLang, as data.

``tests/engine/test_seams.py`` holds this list against the installed wheel: when SGLang moves a symbol or
changes a parameter, that test fails first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

SGLANG_VERSION = "0.5.23"

Kind = Literal["before", "after", "around", "replace", "backend"]


@dataclass(frozen=True, slots=True)
class Seam:
    """One touched symbol.

    Attributes:
        name: How the handshake names it.
        target: Dotted path of the symbol.
        kind: Hook before, after, around or in place of it, or a registry that takes our class.
        parameters: Leading parameters that our hook relies on.
        why: What breaks without it.
    """

    name: str
    target: str
    kind: Kind
    parameters: tuple[str, ...]
    why: str


POOL = Seam(
    "pool",
    "sglang.srt.mem_cache.kv_cache_configurator.KVCacheConfigurator._resolve_kv_pool_class",
    "after",
    ("self", "kind", "default"),
    "cells need all layers in one tensor",
)
ATTENTION = Seam(
    "attention",
    "sglang.srt.layers.attention.attention_registry.register_attention_backend",
    "backend",
    ("name",),
    "decode must attend to cells",
)
PREFILL = Seam(
    "prefill",
    "sglang.srt.managers.schedule_batch.ScheduleBatch.prepare_for_extend",
    "after",
    ("self",),
    "KV options are checked before the first token, and the prompt's slots are counted",
)
ADMIT = Seam(
    "admit",
    "sglang.srt.managers.schedule_policy.PrefillAdder.add_one_req",
    "around",
    ("self", "req"),
    "a new request must reserve its bounded footprint, or the freed room stays empty",
)
ADMIT_CHUNK = Seam(
    "admit-chunk",
    "sglang.srt.managers.schedule_policy.PrefillAdder.add_chunked_req",
    "around",
    ("self", "req"),
    "likewise for the chunks of a long prompt",
)
RESERVED = Seam(
    "reserved",
    "sglang.srt.managers.schedule_policy.PrefillAdder._get_running_request_total_token_offset",
    "around",
    ("self", "req"),
    "likewise for what running requests may still take",
)
ROUNDS = Seam(
    "rounds",
    "sglang.srt.managers.scheduler.Scheduler.update_running_batch",
    "before",
    ("self", "batch"),
    "rounds and squeezes run before SGLang asks whether the next step fits, so that it need not retract",
)
MIXED_ROUNDS = Seam(
    "mixed-rounds",
    "sglang.srt.managers.schedule_batch.ScheduleBatch.check_decode_mem",
    "before",
    ("self",),
    "likewise where running requests join a prefill, which does not come by update_running_batch",
)
MIXED_ATTENTION = Seam(
    "mixed-attention",
    "sglang.srt.layers.attention.hybrid_attn_backend.HybridAttnBackend.__init__",
    "after",
    ("self", "model_runner", "prefill_backend", "decode_backend"),
    "in such a step running requests must attend to cells",
)
MIXED_DRAW = Seam(
    "mixed-draw",
    "sglang.srt.model_executor.model_runner.ModelRunner.sample",
    "around",
    ("self", "logits_output", "forward_batch"),
    "in such a step SGLang draws seeded tokens by the rows' lengths, which rounds shorten",
)
BUDGETS = Seam(
    "budgets",
    "sglang.srt.managers.scheduler.Scheduler.set_internal_state",
    "around",
    ("self", "recv_req"),
    "the replica sets the budgets of running requests",
)
DECODE = Seam(
    "decode",
    "sglang.srt.managers.schedule_batch.ScheduleBatch.prepare_for_decode",
    "before",
    ("self",),
    "each token carries its request's counters, and window queries are captured",
)
POSITIONS = Seam(
    "positions",
    "sglang.srt.model_executor.forward_batch_info.ForwardBatch.init_new",
    "after",
    ("cls", "batch", "model_runner"),
    "RoPE follows the true position, not the row's length",
)
SEEDS = Seam(
    "seeds",
    "sglang.srt.sampling.sampling_batch_info.SamplingBatchInfo.from_schedule_batch",
    "after",
    ("cls", "batch"),
    "SGLang drops a request's seed unless the whole engine runs its slow deterministic mode",
)
SEEDED_DRAW = Seam(
    "seeded-draw",
    "sglang.srt.layers.sampler.multinomial_with_seed",
    "replace",
    ("logprobs", "seed", "positions"),
    "SGLang's seeded draw needs a compiled kernel that a plain CPU does not have",
)
MIN_P = Seam(
    "min-p",
    "sglang.srt.layers.sampler.top_k_top_p_min_p_sampling_from_probs_torch",
    "around",
    ("probs", "top_ks", "top_ps", "min_ps", "need_min_p_sampling", "sampling_seed", "positions"),
    "SGLang's scheduler dies of a request that has both min_p and a seed",
)
REPETITION = Seam(
    "repetition",
    "sglang.srt.sampling.penaltylib.repetition_penalty.apply_scaling_penalties",
    "replace",
    ("logits", "scaling_penalties"),
    "SGLang compiles it at its first use, which holds up every request for seconds and needs a C++ compiler",
)
RELEASE = Seam(
    "release",
    "sglang.srt.mem_cache.common.release_kv_cache",
    "before",
    ("req", "tree_cache"),
    "table and window rows go back with the request's slots",
)
HANDSHAKE = Seam(
    "handshake",
    "sglang.srt.managers.scheduler.Scheduler.get_init_info",
    "after",
    ("self",),
    "the replica must know that all of this is in place",
)

SEAMS: tuple[Seam, ...] = (
    POOL,
    ATTENTION,
    PREFILL,
    ADMIT,
    ADMIT_CHUNK,
    RESERVED,
    ROUNDS,
    MIXED_ROUNDS,
    MIXED_ATTENTION,
    MIXED_DRAW,
    BUDGETS,
    DECODE,
    POSITIONS,
    SEEDS,
    SEEDED_DRAW,
    MIN_P,
    REPETITION,
    RELEASE,
    HANDSHAKE,
)

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "sglang.srt.managers.schedule_batch.ReqKvInfo": (
        "req_pool_idx",
        "kv_committed_len",
        "kv_allocated_len",
        "cache_protected_len",
        "holds_kv",
    ),
    "sglang.srt.managers.schedule_batch.ScheduleBatch": (
        "batch_is_full",
        "decoding_reqs",
        "seq_lens",
        "seq_lens_cpu",
        "seq_lens_sum",
        "orig_seq_lens",
        "tree_cache",
    ),
    "sglang.srt.managers.schedule_batch.Req": (
        "customized_info",
        "kv",
        "lock",
        "origin_input_ids",
        "output_ids",
        "prefix_len",
        "rid",
        "sampling_params",
        "skip_radix_cache_insert",
        "time_stats",
        "to_finish",
    ),
    "sglang.srt.managers.scheduler.Scheduler": (
        "chunked_req",
        "collect_inflight_reqs",
        "running_batch",
        "waiting_queue",
    ),
    "sglang.srt.managers.io_struct.SetInternalStateReq": ("server_args",),
    "sglang.srt.managers.io_struct.SetInternalStateReqOutput": ("updated",),
    "sglang.srt.managers.tokenizer_control_mixin.TokenizerControlMixin": ("set_internal_state",),
    "sglang.srt.layers.attention.hybrid_attn_backend.HybridAttnBackend": ("prefill_backend", "decode_backend"),
    "sglang.srt.model_executor.forward_batch_info.ForwardBatch": (
        "batch_size",
        "extend_num_tokens",
        "extend_prefix_lens",
        "extend_prefix_lens_cpu",
        "extend_seq_lens",
        "extend_seq_lens_cpu",
        "extend_start_loc",
        "forward_mode",
        "input_ids",
        "orig_seq_lens",
        "out_cache_loc",
        "positions",
        "req_pool_indices",
        "seq_lens",
        "seq_lens_cpu",
        "seq_lens_sum",
    ),
    "sglang.srt.layers.attention.base_attn_backend.AttentionBackend": (
        "forward_decode",
        "forward_metadata",
        "get_cuda_graph_seq_len_fill_value",
        "init_cuda_graph_state",
        "init_forward_metadata",
        "init_forward_metadata_in_graph",
        "init_forward_metadata_out_graph",
        "shared_read_ends",
    ),
    "sglang.srt.mem_cache.allocator.base.BaseTokenToKVPoolAllocator": (
        "alloc",
        "available_size",
        "evict_to_free_tokens",
    ),
    "sglang.srt.mem_cache.base_prefix_cache.BasePrefixCache": ("evictable_size", "free_kv_row", "unlock"),
    "sglang.srt.mem_cache.memory_pool.MHATokenToKVPool": ("_create_buffers_normal",),
}
"""Attributes that ReasonServe reads or sets on SGLang's objects, by class."""


def register(hooks: dict[Seam, Callable[..., Any]]) -> None:
    """Registers a hook for each seam that is one.

    Raises:
        KeyError: A seam has no hook.
    """
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    for seam in SEAMS:
        if seam.kind != "backend":
            HookRegistry.register(seam.target, hooks[seam], HookType(seam.kind))


def applied() -> tuple[str, ...]:
    """Returns the names of the seams that are in place in this process.

    SGLang logs and goes on when a hook cannot be applied, so absence here is the only sign.
    """
    from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS
    from sglang.srt.plugins.hook_registry import HookRegistry

    names = [s.name for s in SEAMS if s.target in HookRegistry._patched]
    if "reasonalloc" in ATTENTION_BACKENDS:
        names.append(ATTENTION.name)
    return tuple(sorted(names))
