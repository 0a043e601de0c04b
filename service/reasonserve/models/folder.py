"""Reads a model folder's ``config.json`` and safetensors headers; standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonserve.errors import StartupError

_LENGTH_BYTES = 8
# The format's own limit; a larger number means the file is something else.
_MAX_HEADER_BYTES = 100_000_000
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")


@dataclass(frozen=True, slots=True, order=True)
class StoredTensor:
    """Where one tensor lies.

    Attributes:
        name: Its name in the checkpoint.
        dtype: Element type as the format spells it, such as ``BF16``.
        shape: Sizes of its axes.
        file: The safetensors file.
        offset: Position of its first byte in the file.
        num_bytes: Its length.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    num_bytes: int


def read_config(folder: Path) -> Mapping[str, Any]:
    """The folder's ``config.json``.

    Raises:
        StartupError: It is absent or no JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StartupError(
            f"{path} cannot be read as JSON: {error}. Give a folder saved by save_pretrained."
        ) from error
    if not isinstance(config, dict):
        raise StartupError(f"{path} holds no JSON object. Give a folder saved by save_pretrained.")
    return config


def read_tensors(folder: Path) -> list[StoredTensor]:
    """All tensors of the folder, by name, however they are split over files.

    Raises:
        StartupError: There are no safetensors files, or one is cut short or malformed.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise StartupError(f"{folder} holds no *.safetensors file. Save the weights as safetensors.")
    return sorted(tensor for file in files for tensor in _read_header(file))


def validate_folder(folder: Path) -> Path:
    """Checks that a folder can be served: config, weights (complete shards), tokenizer.

    Returns:
        The folder, absolute.

    Raises:
        StartupError: Names what is missing.
    """
    if not read_config(folder).get("architectures"):
        raise StartupError(f"{folder / 'config.json'} names no architecture. Give a causal language model.")
    stored = {tensor.name for tensor in read_tensors(folder)}
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        expected = set(json.loads(index.read_bytes()).get("weight_map", {}))
        if missing := sorted(expected - stored):
            raise StartupError(
                f"{folder} lacks {len(missing)} tensors of its index, first {missing[0]}. Copy all shards."
            )
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise StartupError(f"{folder} has no tokenizer; one of {', '.join(_TOKENIZERS)} is needed.")
    return folder.resolve()


def _read_header(file: Path) -> list[StoredTensor]:
    """Parses ``<u64 length><JSON header><data>``; offsets in the header count from the data's first byte."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            if length > min(_MAX_HEADER_BYTES, size - _LENGTH_BYTES):
                raise ValueError("its header is longer than the file")
            header: dict[str, Any] = json.loads(stream.read(length))
        start = _LENGTH_BYTES + length
        tensors = [_tensor(file, name, entry, start) for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError) as error:
        raise StartupError(f"{file} is no safetensors file: {error}. Download it again.") from error
    if any(tensor.offset + tensor.num_bytes > size for tensor in tensors):
        raise StartupError(f"{file} is cut short at {size} bytes. Download it again.")
    return tensors


def _tensor(file: Path, name: str, entry: Mapping[str, Any], start: int) -> StoredTensor:
    begin, end = entry["data_offsets"]
    shape = tuple(int(axis) for axis in entry["shape"])
    return StoredTensor(name, str(entry["dtype"]), shape, file, start + int(begin), int(end) - int(begin))
