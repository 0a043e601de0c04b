"""What is asked, what is stored, and what the engine's counters must say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reasonserve.bench.__main__ import app
from reasonserve.bench.accuracy.plan import Cell, Contender, cells, parse_contenders, parse_modes
from reasonserve.bench.accuracy.run import Bench, UnequalCellsError, kept_in_all
from reasonserve.bench.accuracy.store import open_samples
from reasonserve.bench.accuracy.summary import markdown, summarize
from reasonserve.bench.accuracy.tasks import find_task
from reasonserve.bench.tasks import gsm8k
from reasonserve.bench.tasks.sample import Sample
from reasonserve.errors import InvalidRequestError

PER_SLOT = 8


def cell(method: str = "r-kv", mode: str = "evictable", budget: int = 192, profile: str = "") -> Cell:
    return Cell("chaser", mode, budget, 16, Contender(method, profile))  # type: ignore[arg-type]


def output(kept: list[int], held: list[int], cached: int = 0) -> dict:
    rounds = [{"output_tokens": place, "kept_cells": cells_} for place, cells_ in enumerate(kept)]
    return {"kv": {"rounds": rounds}, "held": held, "cached_tokens": cached}


def test_a_pinned_prompt_is_paid_from_the_same_budget() -> None:
    assert cell(mode="pinned").kv(100)["budget_tokens"] == 92
    assert cell(mode="evictable").kv(100)["budget_tokens"] == 192
    assert cell("random-pinned").kv(100)["prompt_mode"] == "pinned"
    assert cell("random-pinned").kv(100)["budget_tokens"] == 92
    assert cell(mode="pinned").kv(161) is None
    assert cell("full").kv(400) == {"method": "full", "budget_tokens": 0}


def test_counters_that_contradict_the_budget_stop_the_run() -> None:
    mine, kv = cell(), {"prompt_mode": "evictable"}
    kept_in_all(mine, kv, 100, output([192 * PER_SLOT] * 2, [150, 193, 208]), PER_SLOT)
    with pytest.raises(UnequalCellsError, match="not 192"):
        kept_in_all(mine, kv, 100, output([192 * PER_SLOT, 191 * PER_SLOT], [150, 193]), PER_SLOT)
    with pytest.raises(UnequalCellsError, match="209 slots were held"):
        kept_in_all(mine, kv, 100, output([192 * PER_SLOT], [150, 209]), PER_SLOT)
    pinned = {"prompt_mode": "pinned"}
    kept_in_all(mine, pinned, 100, output([92 * PER_SLOT], [0, 109], cached=99), PER_SLOT)
    with pytest.raises(UnequalCellsError, match="not 192"):
        kept_in_all(mine, pinned, 100, output([192 * PER_SLOT], [0, 208]), PER_SLOT)


def test_methods_and_modes_are_read_or_refused() -> None:
    assert parse_contenders("full, reasonalloc@sensitivity,wave/adakv/snapkv") == [
        Contender("full", ""),
        Contender("reasonalloc", "sensitivity"),
        Contender("wave/adakv/snapkv", "wave"),
    ]
    for wrong, words in {"best": "best", "r-kv@wave": "no profile", "full@wave": "no profile"}.items():
        with pytest.raises(InvalidRequestError, match=words):
            parse_contenders(wrong)
    assert parse_modes("evictable,pinned") == ["pinned", "evictable"]
    with pytest.raises(InvalidRequestError, match="allowed: pinned, evictable"):
        parse_modes("lost")
    with pytest.raises(InvalidRequestError, match="needs --gsm8k FILE"):
        find_task("gsm8k", None, 512)


def test_full_is_asked_once_for_all_budgets() -> None:
    planned = cells(["chaser"], ["evictable"], [128, 192], 16, parse_contenders("full,r-kv"))
    assert [(c.contender.method, c.budget) for c in planned] == [("full", 0), ("r-kv", 128), ("r-kv", 192)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, "float32", {}, {"chaser": find_task("chaser", None, 0)}, 3)


def record(which: Cell, index: int, correct: bool) -> dict:
    rest = {"part": float(correct), "peak_slots": 208, "rounds": [], "layer_budgets": []}
    return {
        "cell": which.key(),
        "name": f"chaser/test/{index}",
        "profile_id": "",
        "correct": correct,
        **rest,
    }


def test_samples_survive_a_killed_run(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "samples.jsonl"
    open_samples(file, "0f").add([record(cell(), 0, True), record(cell(), 1, False)])
    file.write_text(file.read_text()[:-20])
    again = open_samples(file, "0f")
    assert again.get(cell(), "chaser/test/0", "")["correct"] is True
    assert again.get(cell(), "chaser/test/1", "") is None
    assert open_samples(file, "1e").get(cell(), "chaser/test/0", "") is None
    assert again.get(cell(budget=128), "chaser/test/0", "") is None


def test_methods_are_compared_on_the_same_questions(bench: Bench, tmp_path: Path) -> None:
    stored = open_samples(tmp_path / "s.jsonl", "0f")
    judged, other = cell(), cell("snapkv")
    stored.add([record(judged, 0, True), record(judged, 1, True), record(judged, 2, False)])
    stored.add([record(other, 0, True), record(other, 2, True)])
    rows = summarize(bench, [judged, other], stored, "r-kv")
    assert [(row.questions, round(row.accuracy, 2)) for row in rows] == [(3, 0.67), (2, 1.0)]
    assert rows[0].against is None
    paired = rows[1].against
    assert paired is not None
    assert (paired.only_first, paired.only_second, paired.difference) == (0, 1, -0.5)
    assert "| snapkv | 1.00/1.00" in markdown(rows)


def test_gsm8k_is_graded_by_the_boxed_number() -> None:
    sample = Sample("gsm8k/test/0", "?", "1250")
    assert gsm8k.grade(sample, "First 3, so \\boxed{1,250} eggs, not 7.").correct
    assert gsm8k.grade(sample, "It is 1250.").correct
    assert not gsm8k.grade(sample, "\\boxed{12}, that is 1250").correct
    assert not gsm8k.grade(sample, "I do not know").correct


def test_gsm8k_is_read_from_the_published_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text("\n".join(json.dumps({"question": f"q{n}", "answer": f"x #### {n}"}) for n in range(9)))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert gsm8k.read(file, digest) == gsm8k.read(file, digest)
    assert {sample.answer for sample in gsm8k.read(file, digest)} == {str(n) for n in range(9)}
    with pytest.raises(InvalidRequestError, match=f"sha256 {digest}, not 3730d3.*grade-school-math"):
        gsm8k.read(file)
    with pytest.raises(InvalidRequestError, match="cannot be read: No such file"):
        gsm8k.read(tmp_path / "none.jsonl")


def test_what_cannot_be_asked_is_refused_in_one_line(pytestconfig: pytest.Config) -> None:
    model = str(pytestconfig.rootpath / "tests" / "data" / "pointer-chaser-heads")
    for options, said in (
        (["--methods", "layer-only@sensitivity"], "No sensitivity profile ships for this model"),
        (["--methods", "r-kw"], "--methods has 'r-kw'"),
    ):
        result = CliRunner().invoke(app, ["accuracy", "--model", model, *options])
        assert (result.exit_code, said in result.stderr, "Traceback" in result.output) == (1, True, False)
