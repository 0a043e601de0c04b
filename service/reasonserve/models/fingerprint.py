"""Identifies a model by its content, in seconds whatever its size; standard library only."""

from __future__ import annotations

import hashlib
import json
from itertools import groupby
from pathlib import Path

from reasonserve.models.folder import StoredTensor, read_config, read_tensors

# The fields that fix what a layer profile or a KV pool is about; spelled alike by every writer.
_FIELDS = (
    "architectures",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)
_SAMPLE_BYTES = 4096
_DIGITS = 16


def fingerprint(path: Path) -> str:
    """Fingerprint of a model folder.

    It is the beginning of a SHA-256 over the fields of ``config.json`` that define shapes, and,
    tensor by tensor in order of name, over name, dtype, shape and the middle 4 KiB of its data.
    So every tensor counts, a copy elsewhere or in other shards is the same model, and a 100 GB
    model costs one small read per tensor. A change confined to bytes outside those samples is
    not seen: this tells models apart, it does not prove integrity.

    Args:
        path: Folder with ``config.json`` and safetensors files.

    Returns:
        16 hexadecimal digits.

    Raises:
        StartupError: The folder is no model.
    """
    config = read_config(path)
    digest = hashlib.sha256(_canonical([config.get(field) for field in _FIELDS]))
    tensors = read_tensors(path)
    samples = _samples(tensors)
    for tensor in tensors:
        digest.update(_canonical([tensor.name, tensor.dtype, tensor.shape]))
        digest.update(samples[tensor.name])
    return digest.hexdigest()[:_DIGITS]


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _samples(tensors: list[StoredTensor]) -> dict[str, bytes]:
    """The middle of each tensor, read file by file in the order of the disk."""
    samples = {}
    in_disk_order = sorted(tensors, key=lambda tensor: (tensor.file, tensor.offset))
    for file, group in groupby(in_disk_order, key=lambda tensor: tensor.file):
        with file.open("rb") as stream:
            for tensor in group:
                length = min(_SAMPLE_BYTES, tensor.num_bytes)
                stream.seek(tensor.offset + (tensor.num_bytes - length) // 2)
                samples[tensor.name] = stream.read(length)
    return samples
