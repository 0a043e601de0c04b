"""Steps that mix the chunk of a prompt with running requests, so that a long prompt does not hold up its neighbours.

SGLang puts the running requests at the end of such a batch, as prompts of one token, and calls the step a prefill. Its
prefill backend would take their rows for dense.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from sglang.srt.layers.attention.base_attn_backend import AttentionBackend
    from sglang.srt.layers.radix_attention import RadixAttention
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch

    from reasonserve.engine.attention import CellAttention
    from reasonserve.engine.compressor import Compressor

_OF_A_REQUEST = (
    "req_pool_indices",
    "seq_lens",
    "seq_lens_cpu",
    "orig_seq_lens",
    "extend_seq_lens",
    "extend_prefix_lens",
    "extend_start_loc",
    "extend_seq_lens_cpu",
    "extend_prefix_lens_cpu",
)
"""Fields of a batch with one entry for each request, of those that attention reads."""

_OF_A_TOKEN = ("input_ids", "positions", "out_cache_loc")
"""Likewise with one entry for each token."""


_TRUE_LENGTHS = "reasonserve_true_lengths"
"""Attribute of a mixed batch: lengths as they would be without rounds. [B]"""


class MixedPrefill:
    """SGLang's prefill backend, with running requests handed on to decode attention; all else is that backend's own.

    Args:
        prefill: SGLang's backend.
        decode: Ours.
        compressor: Knows how many requests of a prefill run already.
    """

    def __init__(self, prefill: AttentionBackend, decode: CellAttention, compressor: Compressor) -> None:
        self._prefill = prefill
        self._decode = decode
        self._compressor = compressor
        self._parts: tuple[ForwardBatch, ForwardBatch] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._prefill, name)

    def init_forward_metadata(self, forward_batch: ForwardBatch) -> None:
        """Plans a step, each part with its own backend."""
        running, self._parts = self._compressor.running_in_prefill, None
        if not running:
            self._prefill.init_forward_metadata(forward_batch)
            return
        self._parts = parts = split(forward_batch, running)
        self._prefill.init_forward_metadata(parts[0])
        self._decode.init_forward_metadata(parts[1])

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer: RadixAttention,
        forward_batch: ForwardBatch,
        save_kv_cache: bool = True,
        **more: Any,
    ) -> torch.Tensor:
        """Attends, each part with its own backend.

        Args:
            q: Queries after RoPE, running requests' last. [T, Hq * D]
            k, v: The tokens' keys and values. [T, H, D] or [T, H * D]
            layer: The layer.
            forward_batch: The batch that ``init_forward_metadata`` planned.
            save_kv_cache: Whether to store K and V.
            more: Passed on to SGLang's backend.

        Returns:
            Attention output. [T, Hq * D]
        """
        if self._parts is None:
            attended: torch.Tensor = self._prefill.forward(q, k, v, layer, forward_batch, save_kv_cache, **more)
            return attended
        (prompts, running), end = self._parts, len(q) - self._parts[1].batch_size
        of_prompts = self._prefill.forward(q[:end], k[:end], v[:end], layer, prompts, save_kv_cache, **more)
        return torch.cat(
            (of_prompts, self._decode.forward_decode(q[end:], k[end:], v[end:], layer, running, save_kv_cache))
        )


def split(forward_batch: ForwardBatch, running: int) -> tuple[ForwardBatch, ForwardBatch]:
    """Returns a mixed batch's prompts, as a prefill, and its running requests, as a decode step.

    Args:
        forward_batch: The batch; views of its tensors are returned.
        running: Requests at its end that run already.
    """
    from sglang.srt.model_executor.forward_batch_info import ForwardMode

    prompts, decode = copy(forward_batch), copy(forward_batch)
    decode.forward_mode = ForwardMode.DECODE
    prompts.batch_size, decode.batch_size = forward_batch.batch_size - running, running
    for names in (_OF_A_REQUEST, _OF_A_TOKEN):
        for name in names:
            entries = getattr(forward_batch, name)
            if entries is not None:
                end = len(entries) - running
                setattr(prompts, name, entries[:end])
                setattr(decode, name, entries[end:])
    for part in (prompts, decode):
        if part.seq_lens_cpu is not None:
            part.seq_lens_sum = int(part.seq_lens_cpu.sum())
    if prompts.extend_num_tokens is not None:
        prompts.extend_num_tokens = forward_batch.extend_num_tokens - running
    return prompts, decode


def set_true_positions(forward_batch: ForwardBatch, *, running: int) -> None:
    """Gives running requests their true positions, for RoPE and for `draw_at_true_positions`.

    Args:
        forward_batch: A mixed batch, fresh from the schedule.
        running: Requests at its end that run already.
    """
    lengths_B = forward_batch.orig_seq_lens[-running:]
    forward_batch.positions[-running:] = lengths_B - 1
    true_lengths = torch.cat((forward_batch.seq_lens[:-running], lengths_B.to(forward_batch.seq_lens)))
    setattr(forward_batch, _TRUE_LENGTHS, true_lengths)


def draw_at_true_positions(
    sample: Callable[..., Any], runner: Any, logits_output: Any, forward_batch: ForwardBatch, *rest: Any, **more: Any
) -> Any:
    """Has SGLang sample a mixed batch at its true positions: it takes a prefill's from the lengths of its rows."""
    true_lengths = getattr(forward_batch, _TRUE_LENGTHS, None)
    if true_lengths is None:
        return sample(runner, logits_output, forward_batch, *rest, **more)
    lengths, forward_batch.seq_lens = forward_batch.seq_lens, true_lengths
    try:
        return sample(runner, logits_output, forward_batch, *rest, **more)
    finally:
        forward_batch.seq_lens = lengths
