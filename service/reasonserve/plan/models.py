"""A model's weights and KV cache in bytes, from its ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from reasonserve.errors import StartupError
from reasonserve.models.folder import read_config, read_tensors

DTYPE_BYTES: Mapping[str, int] = MappingProxyType({"bfloat16": 2, "float16": 2, "float32": 4})

_QWEN3 = {"family": "qwen3", "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936}
_R1_QWEN = {"family": "qwen2", "head_dim": 128, "vocab_size": 152064}
_R1_LLAMA = {"family": "llama", "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256}
_TABLE: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "smollm2-135m-instruct": {
            "family": "llama", "num_hidden_layers": 30, "num_key_value_heads": 3, "head_dim": 64,
            "num_attention_heads": 9, "hidden_size": 576, "intermediate_size": 1536, "vocab_size": 49152,
            "tie_word_embeddings": True, "source": "HuggingFaceTB/SmolLM2-135M-Instruct",
        },
        "qwen3-8b": _QWEN3 | {
            "num_hidden_layers": 36, "num_attention_heads": 32, "hidden_size": 4096, "intermediate_size": 12288,
            "source": "Qwen/Qwen3-8B",
        },
        "qwen3-14b": _QWEN3 | {
            "num_hidden_layers": 40, "num_attention_heads": 40, "hidden_size": 5120, "intermediate_size": 17408,
            "source": "Qwen/Qwen3-14B",
        },
        "qwen3-32b": _QWEN3 | {
            "num_hidden_layers": 64, "num_attention_heads": 64, "hidden_size": 5120, "intermediate_size": 25600,
            "source": "Qwen/Qwen3-32B",
        },
        "deepseek-r1-distill-qwen-7b": _R1_QWEN | {
            "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "hidden_size": 3584,
            "intermediate_size": 18944, "source": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        },
        "deepseek-r1-distill-qwen-32b": _R1_QWEN | {
            "num_hidden_layers": 64, "num_attention_heads": 40, "num_key_value_heads": 8, "hidden_size": 5120,
            "intermediate_size": 27648, "source": "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B",
        },
        "deepseek-r1-distill-llama-8b": _R1_LLAMA | {
            "num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096, "intermediate_size": 14336,
            "source": "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
        },
        "deepseek-r1-distill-llama-70b": _R1_LLAMA | {
            "num_hidden_layers": 80, "num_attention_heads": 64, "hidden_size": 8192, "intermediate_size": 28672,
            "source": "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
        },
    }
)  # fmt: skip
"""Fields of the published ``config.json`` of each model; ``source`` is its id on the Hugging Face hub."""

KNOWN_MODELS = tuple(_TABLE)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """What sizing needs of a model.

    Attributes:
        name: What the user calls it.
        num_layers: Layers L.
        num_kv_heads: KV heads H.
        head_dim: Width D of a head.
        num_parameters: Elements of the weights.
        source: Where the figures come from.
    """

    name: str
    num_layers: int
    num_kv_heads: int
    head_dim: int
    num_parameters: int
    source: str

    def bytes_per_slot(self, dtype: str) -> int:
        """Returns the bytes of K and V of one token: ``2 * L * H * D * size``."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * DTYPE_BYTES[dtype]

    def weight_bytes(self, dtype: str) -> int:
        """Returns the bytes of the weights, all of one type."""
        return self.num_parameters * DTYPE_BYTES[dtype]


def find_shape(model: str) -> ModelShape:
    """Returns the shape of a known model, or of a local folder's.

    Raises:
        StartupError: It is neither, or its cache is none that ReasonServe serves.
    """
    if fields := _TABLE.get(model.lower()):
        return _shape(model.lower(), fields, num_parameters(fields), f"{fields['source']} config.json")
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise StartupError(
            f"{model!r} is no model that can be sized. Allowed: {', '.join(KNOWN_MODELS)}, or a folder with "
            "config.json and safetensors."
        )
    config = read_config(folder)
    _check_supported(config)
    elements = sum(_product(tensor.shape) for tensor in read_tensors(folder))
    return _shape(model, config, elements, "its config.json and safetensors")


def num_parameters(fields: Mapping[str, Any]) -> int:
    """Counts the weights of a dense decoder of the Llama, Qwen2 or Qwen3 family from its shapes."""
    hidden, heads, kv_heads = (fields[f] for f in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    width, family = fields["head_dim"], fields["family"]
    queries, keys = heads * width, kv_heads * width
    attention = hidden * (2 * queries + 2 * keys)
    attention += queries + 2 * keys if family == "qwen2" else 0  # biases of q, k and v
    attention += 2 * width if family == "qwen3" else 0  # norms of q and k
    layer = attention + 3 * hidden * fields["intermediate_size"] + 2 * hidden
    embeddings = fields["vocab_size"] * hidden * (1 if fields.get("tie_word_embeddings") else 2)
    return int(fields["num_hidden_layers"] * layer + embeddings + hidden)


def _shape(name: str, config: Mapping[str, Any], elements: int, source: str) -> ModelShape:
    heads = int(config["num_attention_heads"])
    return ModelShape(
        name=name,
        num_layers=int(config["num_hidden_layers"]),
        num_kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
        num_parameters=elements,
        source=source,
    )


def _check_supported(config: Mapping[str, Any]) -> None:
    missing = [key for key in ("num_hidden_layers", "num_attention_heads", "hidden_size") if key not in config]
    if missing:
        raise StartupError(f"config.json lacks {', '.join(missing)}. Give a causal language model's folder.")
    if config.get("kv_lora_rank") or (config.get("sliding_window") and config.get("use_sliding_window", True)):
        raise StartupError(
            "config.json describes latent or sliding-window attention, which ReasonServe does not serve; give a model "
            "with one dense KV cache per layer."
        )


def _product(sizes: tuple[int, ...]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result
