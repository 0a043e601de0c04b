"""What a model may be called, and what is said when it may not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reasonserve.errors import StartupError
from reasonserve.models.cache import ModelCache
from reasonserve.models.registry import BUILTIN_MODELS
from reasonserve.models.resolve import resolve_model

Make = Callable[..., Path]


def test_a_local_folder_is_itself(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_model("mine", {"a": b"x"})
    assert resolve_model(str(folder)) == folder
    monkeypatch.chdir(folder.parent)
    assert resolve_model("./mine") == folder


def test_a_cached_builtin_is_not_fetched_again(cache: ModelCache) -> None:
    model = BUILTIN_MODELS["smollm2-135m-instruct"]
    cache.place(model).mkdir(parents=True)
    steps: list[str] = []
    assert resolve_model(model.name, steps.append, cache=cache) == cache.place(model)
    assert steps == []


@pytest.mark.parametrize("source", ["smollm", "", "a/b/c", "org/", "http://host/model"])
def test_anything_else_is_refused_with_what_is_allowed(source: str) -> None:
    with pytest.raises(StartupError, match=r"smollm2-135m-instruct.*existing folder.*org/name"):
        resolve_model(source)


def test_a_folder_must_be_complete(make_model: Make) -> None:
    folder = make_model("mine", {"a": b"x"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "1", "b": "2"}}))
    with pytest.raises(StartupError, match="lacks 1 tensors of its index, first b"):
        resolve_model(str(folder))
    (folder / "model.safetensors.index.json").unlink()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(StartupError, match="no tokenizer"):
        resolve_model(str(folder))
    (folder / "config.json").write_text("[]")
    with pytest.raises(StartupError, match="no JSON object"):
        resolve_model(str(folder))


def test_a_hub_model_that_cannot_be_had_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(StartupError, match=r"some-org/some-model cannot be had.*local folder"):
        resolve_model("some-org/some-model")
