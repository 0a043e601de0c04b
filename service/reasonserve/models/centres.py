"""Measures where each head's queries lie before RoPE while a model decodes. Loads torch and transformers.

The calibration of TriAttention (arXiv 2604.04921), from our own probes: queries are read where attention gets them,
after RoPE, and turned back. Of prompts none is taken: what scores must foresee is the queries of decoding.

Letters: Q query heads, T tokens, D width of a head, F pairs of a head, which is D / 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from reasonalloc.centres import QueryCentres
from reasonserve.models.traces import Tick, Trace

ATTENTION = "reasonserve_centres"
"""Name under which transformers finds ``attend``."""

_FIXED_ROPES = ("default", "linear", "llama3", "yarn")
"""Kinds of RoPE whose angles do not change with the length of the context."""


class Sums:
    """Sums over the decode queries of some traces, by layer: of pairs as complex numbers, and of their lengths.

    Args:
        frequencies: RoPE's angle per token. [F]
    """

    def __init__(self, frequencies: Tensor) -> None:
        self._frequencies = frequencies.double()
        self._pairs: dict[int, Tensor] = {}
        self._lengths: dict[int, Tensor] = {}
        self._count: dict[int, int] = {}
        self.first = 0

    def add(self, layer: int, queries: Tensor) -> None:
        """Adds the queries after RoPE [Q, T, D] of one trace, from the ``first`` on."""
        places = torch.arange(self.first, queries.shape[1], device=queries.device)
        real, imaginary = queries[:, self.first :].double().chunk(2, dim=2)
        angles = -places[:, None] * self._frequencies
        pairs = torch.complex(real, imaginary) * torch.polar(torch.ones_like(angles), angles)
        self._pairs[layer] = self._pairs.get(layer, 0) + pairs.sum(dim=1)
        self._lengths[layer] = self._lengths.get(layer, 0) + pairs.abs().sum(dim=1)
        self._count[layer] = self._count.get(layer, 0) + len(places)

    def packed(self) -> QueryCentres:
        """The centres of all layers.

        Raises:
            ProfileError: A query is beyond a float16.
        """
        rows = []
        for layer in sorted(self._pairs):
            centre, length = self._pairs[layer] / self._count[layer], self._lengths[layer] / self._count[layer]
            rows.append(torch.stack([centre.real, centre.imag, (length - centre.abs()).clamp(min=0)], dim=1))
        numbers = torch.stack(rows)
        layers, heads = numbers.shape[:2]
        return QueryCentres.pack(layers, heads, self._frequencies.tolist(), numbers.flatten().tolist())


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    scaling: float,
    *,
    sums: Sums,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention of one sequence, as transformers calls it; shows the queries to ``sums``."""
    sums.add(module.layer_idx, query[0])
    output = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, lambda *_, **__: None)


@torch.inference_mode()
def measure_centres(model: Any, traces: Sequence[Trace], tick: Tick) -> QueryCentres | None:
    """Reads the queries of one pass over each trace; leaves the model with ``ATTENTION``.

    Args:
        model: A causal language model of transformers.
        traces: What it said.
        tick: Told the progress.

    Returns:
        The centres; None for a model without RoPE over whole heads in halves, or whose angles change with the length.

    Raises:
        ProfileError: A query is beyond a float16.
    """
    frequencies = _frequencies(model)
    if frequencies is None:
        return None
    model.set_attn_implementation(ATTENTION)
    sums = Sums(frequencies)
    for done, trace in enumerate(traces):
        tick("Measuring queries", done, len(traces))
        sums.first = trace.prompt_tokens
        ids = torch.tensor(trace.tokens, device=model.device)[None]
        model.get_decoder()(input_ids=ids, use_cache=False, sums=sums)
    tick("Measuring queries", len(traces), len(traces))
    return sums.packed()


def _frequencies(model: Any) -> Tensor | None:
    """RoPE's angles per token, where pairs are the halves of whole heads."""
    rotary, config = getattr(model.get_decoder(), "rotary_emb", None), model.config.get_text_config()
    if rotary is None or getattr(rotary, "rope_type", "") not in _FIXED_ROPES:
        return None
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    frequencies: Tensor = rotary.inv_freq
    cos = rotary(torch.zeros(1, device=frequencies.device), torch.ones(1, 1, device=frequencies.device))[0].flatten()
    halves = len(cos) == width and torch.equal(cos[: width // 2], cos[width // 2 :])
    return frequencies if halves and len(frequencies) == width // 2 else None
