"""A round on a small pool, checked against attention over the positions it says it kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reasonalloc import levels
from reasonalloc.methods import parse_method
from reasonalloc.profile import PROFILE_RHOS, LayerProfile
from reasonalloc.scorers import Candidates
from reasonserve.engine.methods import check_satisfiable
from reasonserve.engine.rounds import RoundInput, run_round
from reasonserve.engine.settings import EngineSettings
from reasonserve.kv import KvRequest, Method

LAYERS, HEADS, QUERY_HEADS, WIDTH = 3, 2, 4, 8
BUDGET, TAIL = 40, 20
WINDOW = 8
"""Newest tokens that every scorer here keeps."""
SETTINGS = EngineSettings()


def profile_of(*demand: float) -> LayerProfile:
    """A profile whose weights are these, up to a factor."""
    return LayerProfile(
        model_fingerprint="made up",
        model_name="small pool",
        num_layers=len(demand),
        num_kv_heads=HEADS,
        demand=demand,
        demand_by_rho=dict.fromkeys(PROFILE_RHOS, demand),
        gamma=1.0,
        probes_digest="none",
        created="2026-01-01",
        tool_version="0",
    )


class SmallPool:
    """K and V of one request in shuffled slots, with every cell's true position remembered."""

    def __init__(self, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        num_slots = 100
        self.k = torch.randn((LAYERS * num_slots * HEADS, WIDTH), generator=g)
        self.v = torch.randn((LAYERS * num_slots * HEADS, WIDTH), generator=g)
        self.queries = torch.randn((LAYERS, SETTINGS.window_tokens, QUERY_HEADS, WIDTH), generator=g)
        self.slots = torch.randperm(num_slots - 1, generator=g)[: BUDGET + TAIL] + 1
        layers, heads = torch.arange(LAYERS)[:, None, None], torch.arange(HEADS)[None, :, None]
        self.cells = (layers * num_slots + self.slots) * HEADS + heads
        self.owned_cells = set(self.cells[:, :, :BUDGET].flatten().tolist())

    def first_round(self) -> RoundInput:
        lengths = torch.full((LAYERS, HEADS), BUDGET + TAIL)
        releasable = (torch.arange(BUDGET + TAIL) >= BUDGET).expand(self.cells.shape)
        return RoundInput(self.queries, self.cells, lengths, releasable, BUDGET)


def positions_of(k_before: torch.Tensor, pool: SmallPool, cells: torch.Tensor, layer: int, head: int) -> list[int]:
    """Finds each kept key among the original ones: rows are distinct, so the match is exact."""
    original = k_before[pool.cells[layer, head]]
    return [int((original == pool.k[c]).all(-1).nonzero().item()) for c in cells]


@pytest.mark.parametrize("method", ["r-kv", "reasonalloc", "lava", "entropy/one-pass/vase", "pyramid/adakv/random"])
@pytest.mark.parametrize("seed", range(4))
def test_a_round_keeps_exactly_the_budget_in_owned_slots(method: Method, seed: int) -> None:
    pool = SmallPool(seed)
    k_before, v_before = pool.k.clone(), pool.v.clone()
    profile = profile_of(1.7, 0.4, 0.9)
    output = run_round(method, pool.k, pool.v, pool.first_round(), profile, SETTINGS)

    assert int(output.lengths_LH.sum()) == BUDGET * LAYERS * HEADS
    used: list[int] = []
    for layer in range(LAYERS):
        for head in range(HEADS):
            cells = output.cells_LHN[layer, head, : int(output.lengths_LH[layer, head])]
            used += cells.tolist()
            kept = positions_of(k_before, pool, cells, layer, head)
            assert kept == sorted(kept)
            assert kept[-WINDOW:] == list(range(BUDGET + TAIL))[-WINDOW:]
            assert torch.equal(pool.v[cells], v_before[pool.cells[layer, head, kept]])
    assert len(used) == len(set(used))
    assert set(used) <= pool.owned_cells


def test_layers_and_heads_get_unequal_shares() -> None:
    pool = SmallPool(0)
    profile = profile_of(3.0, 0.5, 0.5)
    output = run_round("reasonalloc", pool.k, pool.v, pool.first_round(), profile, SETTINGS)
    per_layer = output.lengths_LH.sum(-1)
    assert per_layer[0] > BUDGET * HEADS > per_layer[1]
    uniform = run_round("r-kv", pool.k, pool.v, SmallPool(0).first_round(), None, SETTINGS)
    assert (uniform.lengths_LH == BUDGET).all()


def test_candidates_before_the_owned_slots_move_too() -> None:
    """An evictable prompt: releasable cells lie on both sides of the slots that stay."""
    pool = SmallPool(2)
    k_before = pool.k.clone()
    index = torch.arange(BUDGET + TAIL)
    stays = (index >= 12) & (index < 12 + BUDGET)
    work = pool.first_round()
    work = RoundInput(work.queries_LWQD, work.cells_LHN, work.lengths_LH, (~stays).expand(pool.cells.shape), BUDGET)
    output = run_round("r-kv", pool.k, pool.v, work, None, SETTINGS)
    staying = set(pool.cells[:, :, 12 : 12 + BUDGET].flatten().tolist())
    kept = [positions_of(k_before, pool, output.cells_LHN[n, 0, :BUDGET], n, 0) for n in range(LAYERS)]
    assert set(output.cells_LHN.flatten().tolist()) == staying
    assert all(k == sorted(k) for k in kept)
    assert any(k[0] < 12 for k in kept)


def test_rounds_follow_each_other() -> None:
    """A second round starts from ragged lists and a fresh tail in new slots."""
    pool = SmallPool(1)
    profile = profile_of(1.5, 0.5, 1.0)
    first = run_round("reasonalloc", pool.k, pool.v, pool.first_round(), profile, SETTINGS)
    longest = int(first.lengths_LH.max()) + TAIL
    cells = torch.zeros((LAYERS, HEADS, longest), dtype=torch.int64)
    for layer in range(LAYERS):
        for head in range(HEADS):
            n = int(first.lengths_LH[layer, head])
            cells[layer, head, :n] = first.cells_LHN[layer, head, :n]
            cells[layer, head, n : n + TAIL] = pool.cells[layer, head, BUDGET:]
    releasable = torch.arange(longest) >= first.lengths_LH[..., None]
    work = RoundInput(pool.queries, cells, first.lengths_LH + TAIL, releasable, BUDGET)
    second = run_round("reasonalloc", pool.k, pool.v, work, profile, SETTINGS)
    assert int(second.lengths_LH.sum()) == BUDGET * LAYERS * HEADS
    valid = torch.arange(second.cells_LHN.shape[-1]) < second.lengths_LH[..., None]
    kept = second.cells_LHN[valid].tolist()
    assert len(kept) == len(set(kept))
    assert set(kept) <= pool.owned_cells


@pytest.mark.parametrize("method", ["h2o", "wave/reasonalloc/gkv"])
def test_a_statistic_follows_its_cell(method: Method) -> None:
    """Cells move between layers, heads and slots; each keeps the number that it had as a candidate."""
    pool, profile = SmallPool(3), profile_of(1.7, 0.4, 0.9)
    k_before = pool.k.clone()
    first = run_round(method, pool.k, pool.v, pool.first_round(), profile, SETTINGS)
    assert first.statistic_LHN is not None
    assert first.statistic_LHN.shape == first.cells_LHN.shape
    scored = score_of(method, pool, k_before)
    for layer in range(LAYERS):
        for head in range(HEADS):
            n = int(first.lengths_LH[layer, head])
            kept = positions_of(k_before, pool, first.cells_LHN[layer, head, :n], layer, head)
            torch.testing.assert_close(first.statistic_LHN[layer, head, :n], scored[layer, head, kept])


def score_of(method: Method, pool: SmallPool, k_pool: torch.Tensor) -> torch.Tensor:
    """The statistic of all candidates of a first round. [L, H, N]"""
    scored = levels.score_candidates(
        parse_method(method).scorer,
        Candidates(
            queries_RWQD=pool.queries,
            keys_RHND=k_pool[pool.cells],
            values_RHND=None,
            lengths_RH=torch.full((LAYERS, HEADS), BUDGET + TAIL),
            budget=BUDGET,
        ),
    )
    assert scored.statistic_RHN is not None
    return scored.statistic_RHN


def test_a_second_round_starts_from_the_statistic_of_the_first() -> None:
    pool = SmallPool(4)
    work = pool.first_round()
    owned = torch.full((LAYERS, HEADS), BUDGET)
    remembered = torch.full((LAYERS, HEADS, BUDGET), 50.0)
    second = replace(work, owned_LH=owned, statistic_LHK=remembered)
    fresh = run_round("h2o", pool.k.clone(), pool.v.clone(), work, None, SETTINGS)
    output = run_round("h2o", pool.k.clone(), pool.v.clone(), second, None, SETTINGS)
    plain, added = fresh.scores_LHN, output.scores_LHN
    old = torch.arange(BUDGET + TAIL) < BUDGET
    heavy = (plain < 1e5) & old
    torch.testing.assert_close(added[heavy], plain[heavy] + 50)
    assert torch.equal(added[~heavy], plain[~heavy])


@pytest.mark.parametrize("method", ["vase", "random-pinned"])
def test_a_seed_decides_what_is_drawn(method: Method) -> None:
    def kept(seed: int) -> torch.Tensor:
        pool = SmallPool(5)
        return run_round(method, pool.k, pool.v, replace(pool.first_round(), seed=seed), None, SETTINGS).keep_LHN

    assert torch.equal(kept(1), kept(1))
    assert not torch.equal(kept(1), kept(2))


def test_methods_that_need_a_profile_are_refused_without_one() -> None:
    for method in ("reasonalloc", "wave/adakv/lava"):
        with pytest.raises(ValueError, match=f"kv.method is '{method}', .* activate one, or use one of head-only"):
            check_satisfiable(KvRequest(method=method, budget_tokens=64), None)
    check_satisfiable(KvRequest(method="lava", budget_tokens=64), None)
    check_satisfiable(KvRequest(method="reasonalloc", budget_tokens=64), profile_of(1.0, 2.0))
