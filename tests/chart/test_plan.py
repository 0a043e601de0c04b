"""Sizing agrees with published figures, with the real model on disk and with what a replica reserves."""

import json
import re

import pytest

from reasonserve.config import DEFAULT_MODEL
from reasonserve.errors import StartupError
from reasonserve.kv import KvRequest
from reasonserve.models.cache import ModelCache
from reasonserve.models.registry import BUILTIN_MODELS
from reasonserve.plan.models import KNOWN_MODELS, ModelShape, find_shape
from reasonserve.plan.sizing import GPU_MIB, Demand, gpu_bytes, plan
from reasonserve.plan.table import COLUMNS, markdown
from reasonserve.replica.sizing import reservation_slots

PUBLISHED = {
    "smollm2-135m-instruct": 134_515_008,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "deepseek-r1-distill-qwen-7b": 7_615_616_512,
    "deepseek-r1-distill-qwen-32b": 32_763_876_352,
    "deepseek-r1-distill-llama-8b": 8_030_261_248,
    "deepseek-r1-distill-llama-70b": 70_553_706_496,
}
"""Parameters as the models' publishers count them."""
DEMAND = Demand(prompt_tokens=1024, output_tokens=31744, budget_tokens=2048, requests=256)


@pytest.mark.parametrize("name", KNOWN_MODELS)
def test_known_models_have_their_published_size(name):
    assert find_shape(name).num_parameters == PUBLISHED[name]


def test_a_folder_says_what_the_table_says():
    """The fetched model keeps its own embedding; the table's count has the tied one once."""
    folder = ModelCache.default().find(BUILTIN_MODELS[DEFAULT_MODEL])
    assert folder is not None, "run `reasonserve model fetch`"
    here, table = find_shape(str(folder)), find_shape(DEFAULT_MODEL)
    assert (here.num_layers, here.num_kv_heads, here.head_dim) == (table.num_layers, table.num_kv_heads, table.head_dim)
    assert here.num_parameters in (table.num_parameters, table.num_parameters + 49152 * 576)


def test_the_arithmetic_by_hand():
    """Qwen3-8B on an H200: 36 layers of 8 heads of 128, two bytes, keys and values: 144 KiB a token."""
    made = plan(find_shape("qwen3-8b"), "h200", DEMAND)
    assert made.bytes_per_slot == 2 * 36 * 8 * 128 * 2 == 147_456
    pool = int(143_771 * 1024**2 * 0.85) - 8_190_735_360 * 2
    assert made.pool_slots == pool // 147_456
    assert (made.full_slots, made.bounded_slots) == (32_768, 1024 + 2048 + 128)
    assert made.full_requests == made.pool_slots // 32_768
    assert made.bounded_requests == made.pool_slots // 3200
    assert (made.full_replicas - 1) * made.full_requests < 256 <= made.full_replicas * made.full_requests


def test_a_request_counts_as_a_replica_counts_it():
    kv = KvRequest(method="reasonalloc", budget_tokens=2048)
    expected = reservation_slots(kv, prompt_tokens=1024, max_new_tokens=31744)
    assert plan(find_shape("qwen3-8b"), "h200", DEMAND).bounded_slots == expected


def test_a_budget_above_the_output_gains_nothing():
    demand = Demand(prompt_tokens=100, output_tokens=200, budget_tokens=4096, requests=1)
    made = plan(find_shape("qwen3-8b"), "h200", demand)
    assert made.bounded_slots == made.full_slots == 300


def test_what_does_not_fit_is_said():
    made = plan(find_shape("deepseek-r1-distill-llama-70b"), "h100", DEMAND)
    assert (made.pool_slots, made.bounded_requests, made.bounded_replicas) == (0, 0, 0)
    assert "does not fit: 131 GiB of weights" in markdown([made])


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (lambda: find_shape("no-such-model"), "Allowed: smollm2-135m-instruct"),
        (lambda: gpu_bytes("h900"), "Allowed: l4"),
        (lambda: gpu_bytes("-3"), "or a memory size in GiB"),
        (lambda: plan(find_shape("qwen3-8b"), "h200", DEMAND, dtype="int8"), "'int8' is no element type"),
        (lambda: plan(find_shape("qwen3-8b"), "h200", DEMAND, fraction=1.5), "lies between 0 and 1"),
        (lambda: Demand(prompt_tokens=1, output_tokens=1, budget_tokens=8, requests=1), "the smallest is 32"),
        (lambda: Demand(prompt_tokens=9, output_tokens=0, budget_tokens=64, requests=1), "--context must exceed"),
    ],
)
def test_wrong_figures(action, said):
    with pytest.raises(StartupError, match=re.escape(said)):
        action()


@pytest.mark.parametrize("more", [{"kv_lora_rank": 512}, {"sliding_window": 4096}])
def test_caches_that_are_not_served_are_not_sized(tmp_path, more):
    config = {"num_hidden_layers": 1, "num_attention_heads": 1, "hidden_size": 64} | more
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(StartupError, match="does not serve"):
        find_shape(str(tmp_path))


def test_memory_may_be_a_number():
    assert gpu_bytes("80") == 80 << 30
    assert gpu_bytes("H200") == GPU_MIB["h200"] << 20


def test_the_documentations_table_is_the_commands(chart):
    """Between the markers stands what the command under it prints."""
    text = (chart.root / "docs" / "kubernetes.md").read_text()
    shapes: list[ModelShape] = [find_shape(name) for name in KNOWN_MODELS[1:]]
    demands = [
        Demand(prompt_tokens=1024, output_tokens=31744, budget_tokens=budget, requests=256) for budget in (1024, 2048)
    ]
    plans = [plan(shape, gpu, demand) for shape in shapes for gpu in ("h200", "h100") for demand in demands]
    (shown,) = re.findall(r"<!-- plan -->\n(.*?)<!-- /plan -->", text, re.DOTALL)
    assert shown == markdown(plans)
    assert len(COLUMNS) == 8
