"""The lock pins everything exactly, agrees with what is asked for, and names no package index."""

import re
import tomllib
from pathlib import Path

import pytest

PIN = re.compile(r"(?P<name>[a-z0-9]+(?:[-.][a-z0-9]+)*)==(?P<version>[0-9][\w.!+]*)( ; .+)?")


def _name(requirement: str) -> str:
    """Normalised name of a requirement such as ``Ray[serve]>=2``."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]).lower()


def _lines(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if line and not line.startswith("#")]


@pytest.fixture
def pins(root: Path) -> dict[str, str]:
    matches = {line: PIN.fullmatch(line) for line in _lines(root / "requirements.lock")}
    assert [line for line, match in matches.items() if match is None] == []
    return {match["name"]: match["version"] for match in matches.values() if match}


@pytest.mark.parametrize(
    ("name", "version"), [("sglang", "0.5.23"), ("ray", "2.60.0"), ("torch", "2.14.1"), ("triton", "3.8.0")]
)
def test_key_pins(pins: dict[str, str], name: str, version: str) -> None:
    assert pins[name] == version


def test_everything_asked_for_is_locked(root: Path, pins: dict[str, str]) -> None:
    asked = {_name(line) for line in _lines(root / "requirements.in")}
    assert asked - pins.keys() == set()


def test_everything_the_package_needs_is_asked_for(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    needed = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    asked = {_name(line) for line in _lines(root / "requirements.in")}
    assert {_name(item) for item in needed} - asked == set()
