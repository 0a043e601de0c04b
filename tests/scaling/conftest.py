"""A stack of one or two real engines around a tiny random model, which start soon and say nothing of sense."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from reasonserve.bench.local_stack import LocalStack, local_stack
from reasonserve.config import DEFAULT_MODEL
from reasonserve.models.resolve import resolve_model

POOL_SLOTS = 1024


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two thin layers with random weights, and the default model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("model")
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(DEFAULT_MODEL))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def two_replicas(model_folder: Path) -> Iterator[LocalStack]:
    """One replica, or two under pressure, with short delays."""
    config = {
        "model": str(model_folder),
        "engine": {"pool_slots": POOL_SLOTS, "dtype": "float32", "buffer_tokens": 32, "grammar_backend": "none"},
        "replicas": {
            "num_cpus": 0.5,
            "queue_wait_s": 300.0,
            "queue_requests": 1000,
            "scaling": {
                "max_count": 2,
                "upscale_delay_s": 1.0,
                "downscale_delay_s": 3.0,
                "interval_s": 0.5,
                "window_s": 1.5,
            },
        },
    }
    with local_stack(config) as running:
        yield running
    shutil.rmtree(model_folder, ignore_errors=True)
