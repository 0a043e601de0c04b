"""The accuracy benchmark on a real engine and the small model: answers, counters, resumption, pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasonserve.bench.accuracy import summary
from reasonserve.bench.accuracy.plan import cells, parse_contenders
from reasonserve.bench.accuracy.plots import plot_all
from reasonserve.bench.accuracy.run import Bench, ask
from reasonserve.bench.accuracy.store import SampleFile, open_samples
from reasonserve.bench.accuracy.tasks import find_task
from reasonserve.models.fingerprint import fingerprint
from reasonserve.models.profiles import shipped_profile

pytestmark = pytest.mark.engine

PLANNED = cells(
    ["chaser"], ["evictable"], [256], 16, parse_contenders("full,reasonalloc@sensitivity,r-kv,random-pinned")
)


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest) -> Bench:
    model = request.config.rootpath / "tests" / "data" / "pointer-chaser"
    profile = shipped_profile(fingerprint(model), "sensitivity")
    assert profile is not None
    tasks = {"chaser": find_task("chaser", None, 0)}
    return Bench(model, "float32", {"sensitivity": profile}, tasks, questions=3, at_once=3)


@pytest.fixture(scope="module")
def samples(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> SampleFile:
    stored = open_samples(tmp_path_factory.mktemp("accuracy") / "samples.jsonl", fingerprint(bench.model))
    ask(bench, PLANNED, stored, lambda done, total: None)
    return stored


def test_the_small_model_answers_with_the_full_cache(bench: Bench, samples: SampleFile) -> None:
    rows = {str(row.cell.contender): row for row in summary.summarize(bench, PLANNED, samples, "r-kv")}
    assert len(rows) == 4
    assert (rows["full"].accuracy, rows["full"].part, rows["full"].rounds) == (1.0, 1.0, 0.0)
    assert rows["r-kv"].rounds > 0
    assert rows["random-pinned"].peak_slots <= 256 + 16


def test_no_contender_finds_the_prompt_in_the_cache_that_another_one_filled(bench: Bench, samples: SampleFile) -> None:
    peaks = {
        str(cell.contender): [record["peak_slots"] for record in summary.records_of(bench, cell, samples)]
        for cell in PLANNED
    }
    assert peaks["r-kv"] == peaks["reasonalloc@sensitivity"]
    assert min(peaks["r-kv"]) > 256 + 16  # the first round copies what it keeps of the prompt beside it


def test_what_was_answered_is_not_asked_again(
    bench: Bench, samples: SampleFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reasonserve.bench.accuracy.run.run_job", lambda *_, **__: pytest.fail("an engine started"))
    ask(bench, PLANNED, open_samples(samples.path, fingerprint(bench.model)), lambda done, total: None)


def test_a_run_is_drawn(bench: Bench, samples: SampleFile, tmp_path: Path) -> None:
    rows = summary.summarize(bench, PLANNED, samples, "r-kv")
    files = plot_all(rows, lambda row: summary.records_of(bench, row.cell, samples), tmp_path)
    assert len(files) == 4
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
