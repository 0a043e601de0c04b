"""The layer profile is what the definition says, checked by hand and by brute force."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from reasonalloc.profile import PROFILE_RHOS
from reasonserve.cli.profile_calibrate import to_profile
from reasonserve.errors import StartupError
from reasonserve.models import calibrate as measuring
from reasonserve.models import traces
from reasonserve.models.calibrate import Calibration, decode_rows, layer_demand


def test_rows_are_the_last_eight_of_every_128_decode_steps() -> None:
    assert decode_rows(10, 522) == [row for end in (138, 266, 394, 522) for row in range(end - 8, end)]


@given(prompt_tokens=st.integers(1, 500), generated=st.integers(0, 700))
def test_rows_are_decode_rows_and_short_outputs_are_seen_four_times(prompt_tokens: int, generated: int) -> None:
    rows = decode_rows(prompt_tokens, prompt_tokens + generated)
    assert all(prompt_tokens <= row < prompt_tokens + generated for row in rows)
    assert rows == sorted(set(rows))
    assert len(rows) >= min(generated // 8, 4) * 8


def test_layer_demand_by_hand() -> None:
    # Two query heads share one kv head; two queries at positions 1 and 3 of four tokens.
    weights = torch.tensor(
        [
            [[0.95, 0.05, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]],
            [[0.50, 0.50, 0.0, 0.0], [0.97, 0.01, 0.01, 0.01]],
        ]
    )
    # rho 0.93 takes 1 and 4 tokens of the first head, 2 and 1 of the second: the group needs 2 of 2 and 4 of 4.
    assert layer_demand(weights, torch.tensor([1, 3]), 1)[PROFILE_RHOS.index(0.93)] == 1.0
    # As two kv heads of their own: (1/2 + 4/4 + 2/2 + 1/4) / 4.
    assert layer_demand(weights, torch.tensor([1, 3]), 2)[PROFILE_RHOS.index(0.93)] == pytest.approx(0.6875)


def _tiny_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,  # sharp attention, unlike a fresh model's even one
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config).eval()


def test_measuring_agrees_with_the_definition_spelt_out() -> None:
    model, tokens, rows = _tiny_model(), torch.arange(40) % 64, [20, 21, 39]
    measured = measuring._measure(model, tokens, rows, 3, 2)
    attentions = model(input_ids=tokens[None], output_attentions=True).attentions
    for layer, attention in enumerate(attentions):
        shares = []
        for kv_head in range(2):
            for row in rows:
                needs = []
                for head in (2 * kv_head, 2 * kv_head + 1):
                    weights = sorted(attention[0, head, row].tolist(), reverse=True)
                    needs.append(next(k for k in range(1, 41) if sum(weights[:k]) >= 0.93))
                shares.append(max(needs) / (row + 1))
        assert measured[layer, PROFILE_RHOS.index(0.93)] == pytest.approx(np.mean(shares))


def test_hooks_are_gone_afterwards_and_foreign_layers_are_refused() -> None:
    model = _tiny_model()
    measuring._measure(model, torch.arange(12), [11], 3, 2)
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(StartupError, match="3 attention modules for 4 layers"):
        measuring._measure(model, torch.arange(12), [11], 4, 2)


def test_a_profile_holds_the_mean_of_the_probes() -> None:
    by_probe = np.array([[0.2, 0.4, 0.1], [0.4, 0.8, 0.3]])
    calibration = Calibration(
        num_kv_heads=2,
        demand=dict.fromkeys(PROFILE_RHOS, by_probe),
        tasks=("logic", "code"),
        generated_tokens=(8, 8),
        probes_digest="d" * 64,
    )
    profile = to_profile(calibration, model_name="tiny", model_fingerprint="f" * 16)
    assert profile.demand == pytest.approx((0.3, 0.6, 0.2))
    assert (profile.num_layers, profile.num_kv_heads, profile.rho) == (3, 2, 0.93)
    assert profile.evidence["spearman_tasks_least"] == profile.evidence["spearman_rhos_least"] == 1.0
    unstable = dataclasses.replace(calibration, demand={0.93: by_probe, 0.8: by_probe[:, ::-1]})
    assert unstable.evidence(0.93)["spearman_rhos_least"] == 0.5


def test_the_probes_are_at_most_eight_questions_of_several_tasks() -> None:
    probes = traces.shipped_probes()
    assert 2 <= len({probe.prompt for probe in probes}) == len(probes) <= 8
    assert len({probe.task for probe in probes}) > 1
    with pytest.raises(StartupError, match="at least 2"):
        measuring.calibrate(Path(), probes[:1], 8, lambda *_: None)
    with pytest.raises(StartupError, match="9 probe prompts given; give 2 to 8"):
        traces.read_probes("\n".join(f"question {n}" for n in range(9)))


def test_a_line_without_a_task_is_a_task_of_its_own() -> None:
    probes = traces.read_probes("logic\tWho lies?\n\nHow many?\nWhy?\n")
    assert [(probe.task, probe.prompt) for probe in probes] == [
        ("logic", "Who lies?"),
        ("prompt 2", "How many?"),
        ("prompt 3", "Why?"),
    ]
