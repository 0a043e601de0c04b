"""Centres of queries, against the projections that make the queries."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PretrainedConfig

from reasonalloc.scorers import Centres
from reasonserve.models.centres import measure_centres
from reasonserve.models.traces import Trace

TRACES = [Trace(tuple(range(3, 40)), 9), Trace(tuple(range(50, 8, -1)), 30)]


def tiny_model(**change: Any) -> LlamaForCausalLM:
    """Three layers of four query and two kv heads, with sharp attention."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
        attn_implementation="eager",
        **change,
    )
    return LlamaForCausalLM(config).eval()


@torch.no_grad()
def queries_before_rope(model: LlamaForCausalLM) -> torch.Tensor:
    """Decode queries of all traces straight from the projections, ``[L, Q, T, F]`` as complex numbers."""
    by_trace = []
    for trace in TRACES:
        states = model(torch.tensor(trace.tokens)[None], output_hidden_states=True).hidden_states
        layers = []
        for layer, state in zip(model.model.layers, states, strict=False):
            queries = layer.self_attn.q_proj(layer.input_layernorm(state))[0, trace.prompt_tokens :]
            real, imaginary = queries.view(-1, 4, 8).transpose(0, 1).double().chunk(2, dim=2)
            layers.append(torch.complex(real, imaginary))
        by_trace.append(torch.stack(layers))
    return torch.cat(by_trace, dim=2)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 10000.0},
        {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    ],
)
def test_centres_are_means_of_the_decode_queries_before_rope(rope: dict[str, Any]) -> None:
    model = tiny_model(rope_parameters=rope)
    expected = queries_before_rope(model)
    packed = measure_centres(model, TRACES, lambda *_: None)
    assert packed is not None
    centres, mean = Centres.of(packed), expected.mean(dim=2)
    assert centres.frequencies_F.tolist() == pytest.approx(model.model.rotary_emb.inv_freq.tolist())
    torch.testing.assert_close(
        centres.centres_RQD, torch.cat([mean.real, mean.imag], dim=2).float(), rtol=2e-3, atol=1e-4
    )
    spreads = expected.abs().mean(dim=2) - mean.abs()
    torch.testing.assert_close(centres.spreads_RQF, spreads.float(), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_a_model_whose_angles_change_with_the_length_has_none(rope_type: str) -> None:
    model = tiny_model()
    model.model.rotary_emb.rope_type = rope_type
    assert measure_centres(model, TRACES, lambda *_: None) is None
    assert model.config._attn_implementation == "eager"


def test_a_model_without_rope_has_none() -> None:
    model = tiny_model()
    del model.model.rotary_emb
    assert isinstance(model.config, PretrainedConfig)
    assert measure_centres(model, TRACES, lambda *_: None) is None
