"""A fingerprint follows the content: not the place, not the sharding, not the file names."""

import string
from collections.abc import Callable
from pathlib import Path

import pytest

from reasonserve.errors import StartupError
from reasonserve.models.fingerprint import fingerprint

A, B = bytes(range(256)) * 40, b"\x07" * 64
Make = Callable[..., Path]


def test_is_the_same_wherever_and_however_it_is_stored(make_model: Make) -> None:
    one = fingerprint(make_model("one", {"a": A, "b": B}))
    assert len(one) == 16
    assert set(one) <= set(string.hexdigits.lower())
    assert fingerprint(make_model("moved", {"a": A, "b": B})) == one
    assert fingerprint(make_model("sharded", {"b": B}, {"a": A})) == one


def test_ignores_config_that_defines_no_shape(make_model: Make) -> None:
    plain = make_model("plain", {"a": A})
    told = make_model("told", {"a": A}, transformers_version="9", _name_or_path="x")
    assert fingerprint(told) == fingerprint(plain)


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": A, "b": B[:-1] + b"\x08"},  # the last byte of a small tensor
        {"a": A[:5000] + b"\xff" * 100 + A[5100:], "b": B},  # the middle of a large one
        {"a": A, "c": B},
        {"a": A, "b": B + b"\x07"},
        {"a": A},
    ],
)
def test_differs_with_the_weights(make_model: Make, tensors: dict[str, bytes]) -> None:
    assert fingerprint(make_model("other", tensors)) != fingerprint(make_model("one", {"a": A, "b": B}))


def test_differs_with_the_shape(make_model: Make) -> None:
    wide = make_model("wide", {"a": A}, num_key_value_heads=2)
    assert fingerprint(wide) != fingerprint(make_model("narrow", {"a": A}))


def test_refuses_what_is_no_model(make_model: Make, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"config\.json cannot be read"):
        fingerprint(tmp_path)
    with pytest.raises(StartupError, match=r"no \*\.safetensors"):
        fingerprint(make_model("empty"))
    cut = make_model("cut", {"a": A})
    file = cut / "model-0.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StartupError, match="cut short"):
        fingerprint(cut)
    file.write_bytes(b"\xff" * 64)
    with pytest.raises(StartupError, match="no safetensors file"):
        fingerprint(cut)
