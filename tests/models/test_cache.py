"""A cached model is whole or absent, whoever builds it and however they end."""

import threading
from pathlib import Path

import pytest

from reasonserve.models.cache import ModelCache
from reasonserve.models.registry import BuiltinModel


def _finish(work: Path) -> Path:
    made = work / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    return made


def test_absent_until_built_and_built_once(cache: ModelCache, tiny: BuiltinModel) -> None:
    assert cache.find(tiny) is None
    place = cache.build(tiny, _finish)
    assert cache.find(tiny) == place
    assert (place / "config.json").read_text() == "{}"

    def refuse(_: Path) -> Path:
        raise AssertionError("a cached model is not built again")

    assert cache.build(tiny, refuse) == place


def test_a_failed_build_leaves_nothing_but_the_lock(cache: ModelCache, tiny: BuiltinModel) -> None:
    def fail(work: Path) -> Path:
        (_finish(work) / "half").write_bytes(b"x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cache.build(tiny, fail)
    assert cache.find(tiny) is None
    assert [entry.name for entry in cache.place(tiny).parent.iterdir()] == [".lock"]


def test_leftovers_of_a_killed_builder_are_swept_and_never_used(cache: ModelCache, tiny: BuiltinModel) -> None:
    leftover = cache.place(tiny).parent / ".work-killed" / "model"
    leftover.mkdir(parents=True)
    assert cache.find(tiny) is None
    cache.build(tiny, _finish)
    assert not leftover.parent.exists()


def test_two_builders_at_once_share_one_build(cache: ModelCache, tiny: BuiltinModel) -> None:
    builds: list[Path] = []
    started, finish = threading.Event(), threading.Event()

    def slow(work: Path) -> Path:
        builds.append(work)
        started.set()
        assert finish.wait(30)
        return _finish(work)

    places: list[Path] = []
    builders = [threading.Thread(target=lambda: places.append(cache.build(tiny, slow))) for _ in range(2)]
    for builder in builders:
        builder.start()
    assert started.wait(30)
    finish.set()
    for builder in builders:
        builder.join(30)
    assert len(builds) == 1
    assert places == [cache.place(tiny)] * 2


def test_the_environment_moves_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REASONSERVE_CACHE", str(tmp_path / "elsewhere"))
    assert ModelCache.default().root == tmp_path / "elsewhere"
