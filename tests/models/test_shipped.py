"""The profiles that come with the package."""

from __future__ import annotations

from importlib import resources

import pytest

from reasonalloc.profile import LayerProfile
from reasonserve.models.profiles import preferred_profile, shipped_profile

FILES = {
    "pointer-chaser-sensitivity.json": (4, 2, 4, {"layers", "heads", "queries"}),
    "pointer-chaser.json": (4, 2, 4, {"layers", "queries"}),
    "qwen2.5-coder-0.5b-instruct.json": (24, 2, 14, {"layers", "queries"}),
    "qwen2.5-coder-1.5b-instruct-sensitivity.json": (28, 2, 12, {"layers", "queries"}),
    "qwen2.5-coder-1.5b-instruct.json": (28, 2, 12, {"layers", "queries"}),
    "smollm2-135m-instruct.json": (30, 3, 9, {"layers", "queries"}),
}
"""Layers, kv heads, query heads and parts of each."""


@pytest.mark.parametrize("name", FILES)
def test_what_each_holds(name: str) -> None:
    text = resources.files("reasonserve.models").joinpath("profiles", name).read_text()
    profile = LayerProfile.from_json(text)
    assert profile.to_json() == text
    assert profile.queries is not None
    assert (profile.num_layers, profile.num_kv_heads, profile.queries.num_heads, profile.parts) == FILES[name]
    assert shipped_profile(profile.model_fingerprint, profile.kind) == text
    assert profile.evidence


def test_no_other_is_shipped() -> None:
    folder = resources.files("reasonserve.models").joinpath("profiles")
    assert {entry.name for entry in folder.iterdir() if entry.name.endswith(".json")} == FILES.keys()


@pytest.mark.parametrize(
    ("name", "preferred"),
    [
        ("pointer-chaser.json", "pointer-chaser-sensitivity.json"),
        ("qwen2.5-coder-1.5b-instruct.json", "qwen2.5-coder-1.5b-instruct-sensitivity.json"),
        ("smollm2-135m-instruct.json", "smollm2-135m-instruct.json"),
    ],
)
def test_the_measured_one_serves_where_there_is_one(name: str, preferred: str) -> None:
    folder = resources.files("reasonserve.models").joinpath("profiles")
    profile = LayerProfile.from_json(folder.joinpath(name).read_text())
    assert preferred_profile(profile.model_fingerprint) == folder.joinpath(preferred).read_text()
    assert preferred_profile("0" * 16) is None
