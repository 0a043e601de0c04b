"""The judges of exactness on cases small enough to count by hand; no engine runs here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from reasonserve.bench.exact.oracle import Oracle, visible
from reasonserve.bench.exact.records import RoundRecord, read_records
from reasonserve.bench.exact.verdicts import (
    against_stock,
    among_neighbours,
    cut_margin,
    first_difference,
)
from reasonserve.bench.exact.work import FULL, QUICK, dense_wave, neighbour_waves, round_waves

PROMPTS = [[n, 1, 2] for n in range(64)]


def record(stored: int, pinned: int, positions: list[int], keep: list[bool], scores: list[float]) -> RoundRecord:
    """A round of a model with one layer and one kv head."""
    return RoundRecord(
        stored, pinned, [[np.array(positions)]], [[np.array(scores, dtype=np.float32)]], [[np.array(keep)]]
    )


def write(folder: Path, number: int, stored: int, pinned: int, keep: list[bool]) -> None:
    keep_LHN = np.array(keep)[None, None]
    scores_LHN = np.linspace(0, 1, len(keep), dtype=np.float32)[None, None]
    lengths_LH = np.array([[len(keep)]])
    np.savez(
        folder / f"r.{number:04d}.npz",
        scores_LHN=scores_LHN,
        keep_LHN=keep_LHN,
        lengths_LH=lengths_LH,
        stored=stored,
        pinned=pinned,
    )


def test_candidates_are_what_was_kept_and_what_came_since(tmp_path: Path) -> None:
    write(tmp_path, 0, stored=7, pinned=2, keep=[True, False, True, False, True])
    write(tmp_path, 1, stored=9, pinned=2, keep=[False, True, True, False, True])
    first, second = read_records(tmp_path, "r")
    assert first.kept_positions(0, 0).tolist() == [2, 4, 6]
    assert second.positions_LH[0][0].tolist() == [2, 4, 6, 7, 8]
    assert second.kept_positions(0, 0).tolist() == [4, 6, 8]


def test_a_record_that_does_not_follow_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 0, stored=7, pinned=2, keep=[True, False, True, False, True])
    write(tmp_path, 1, stored=9, pinned=2, keep=[True] * 6)
    with pytest.raises(ValueError, match=r"\[6\] candidates; \[5\] were left"):
        read_records(tmp_path, "r")


@given(st.data())
def test_masks_hide_what_each_query_had_lost(data: st.DataObject) -> None:
    length, pinned = 12, data.draw(st.integers(0, 3))
    rounds: list[RoundRecord] = []
    positions = list(range(pinned, data.draw(st.integers(pinned + 1, 8))))
    for _ in range(data.draw(st.integers(1, 2))):
        keep = data.draw(st.lists(st.booleans(), min_size=len(positions), max_size=len(positions)))
        stored = positions[-1] + 1
        rounds.append(record(stored, pinned, positions, keep, [0.0] * len(positions)))
        kept = [p for p, k in zip(positions, keep, strict=True) if k]
        positions = [*kept, *range(stored, stored + 2)]
    seen = visible(rounds, 0, 1, length)[0]
    for query in range(length):
        have = list(range(query + 1))
        for r in [r for r in rounds if r.stored <= query]:
            kept = set(r.kept_positions(0, 0).tolist())
            have = [p for p in have if p < pinned or p in kept or p >= r.stored]
        assert seen[query].nonzero()[:, 0].tolist() == have


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """A random model of one layer and one kv head."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(LlamaConfig(**sizes, **heads, initializer_range=0.7)).save_pretrained(folder)
    return Oracle(str(folder))


def test_the_oracle_takes_what_greedy_decoding_takes(oracle: Oracle) -> None:
    prompt = [3, 7, 1, 9]
    output = oracle._model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=None)
    tokens = output[0, len(prompt) :].tolist()
    assert oracle.judge(prompt, tokens, []) == []
    wrong = [*tokens[:5], (tokens[5] + 1) % 32, *tokens[6:]]
    assert oracle.judge(prompt, wrong, [])[0].index == 5


def test_the_oracle_sees_what_was_evicted_and_no_more(oracle: Oracle) -> None:
    prompt, tokens = [3, 7, 1, 9], [5] * 8
    keep = [True, False, False, True]
    dense = oracle.logits(prompt, tokens, [])
    masked = oracle.logits(prompt, tokens, [record(6, 2, [2, 3, 4, 5], keep, [0.0] * 4)])
    # The token stored at position 6 is the first that attends under the round; it chooses output token 3.
    assert torch.equal(dense[:3], masked[:3])
    assert all(not torch.allclose(dense[n], masked[n]) for n in range(3, 8))


def test_a_divergence_from_stock_counts_unless_stock_was_torn() -> None:
    assert against_stock("r", [1, 2], [1, 2], [0.0, 0.0]).outcome == "identical"
    assert against_stock("r", [1, 3], [1, 2], [9.0, 9e-4]).outcome == "excused"
    assert against_stock("r", [1, 3], [1, 2], [0.0, 2e-3]).outcome == "wrong"
    assert first_difference([1], [1, 2]) == 1


def test_a_cut_that_fell_otherwise_is_as_close_as_the_scores_that_changed_sides() -> None:
    left = record(4, 0, [0, 1, 2, 3], [True, False, True, True], [0.5, 0.49995, 0.9, 0.8])
    right = record(4, 0, [0, 1, 2, 3], [False, True, True, True], [0.5, 0.50005, 0.9, 0.8])
    assert cut_margin(left, left) is None
    assert cut_margin(left, right) == pytest.approx(1e-4, rel=0.01)


def test_neighbours_are_excused_by_what_decided_first() -> None:
    left = record(4, 0, [0, 1, 2, 3], [True, False, True, True], [0.5, 0.3, 0.9, 0.8])
    right = record(4, 0, [0, 1, 2, 3], [False, True, True, True], [0.5, 0.6, 0.9, 0.8])
    logits = torch.tensor([[1.0, 1.00001]] * 4)
    apart = among_neighbours("r", [0, 0, 0, 0], [0, 0, 0, 1], ([left], [right]), logits, 2)
    assert (apart.outcome, apart.reason) == ("wrong", "round")
    torn = among_neighbours("r", [0, 0, 0, 0], [0, 1, 0, 0], ([left], [right]), logits, 2)
    assert (torn.outcome, torn.reason, torn.first) == ("excused", "logits", 1)
    assert among_neighbours("r", [0], [0], ([left], [right]), logits, 2).outcome == "identical"


@pytest.mark.parametrize("setup", [FULL, QUICK])
def test_the_work_fits_its_pool(setup: object) -> None:
    waves = [dense_wave(setup, PROMPTS, stock=True), *round_waves(setup, PROMPTS)]
    waves += neighbour_waves(setup, PROMPTS, stock=True)
    longest = 80  # of the prompts, under the default model's template
    for wave in waves:
        assert sum(longest + request["sampling"]["max_new_tokens"] for request in wave) <= setup.pool_slots
    assert len(waves[-1]) == setup.crowd


def test_a_neighbours_budget_is_changed_in_the_jobs_own_words() -> None:
    requests = [request for wave in neighbour_waves(FULL, PROMPTS, stock=False) for request in wave]
    changed = [request["set_budget"] for request in requests if "set_budget" in request]
    assert len(changed) >= 8
    assert all([set(change) for change in changes] == [{"after", "to"}] for changes in changed)
