"""What a profile holds besides the layers' shares, at work in a round: heads' shares and centres of queries."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reasonalloc.centres import QueryCentres
from reasonalloc.profile import LayerProfile
from reasonalloc.scorers import Centres
from reasonserve.engine.methods import check_satisfiable
from reasonserve.engine.rounds import RoundInput, RoundOutput, run_round
from reasonserve.engine.settings import EngineSettings
from reasonserve.kv import KvRequest, offered_methods

LAYERS, HEADS, QUERY_HEADS, WIDTH, SLOTS = 3, 2, 4, 8, 100
BUDGET, TAIL = 40, 20
SETTINGS = EngineSettings()
CENTRES = QueryCentres.pack(
    LAYERS, QUERY_HEADS, (1.0, 0.3, 0.1, 0.03), [((7 * i) % 11 - 5) / 4 for i in range(LAYERS * QUERY_HEADS * 12)]
)


def profile_of(**parts: object) -> LayerProfile:
    """A profile of the small pool's model, with more than layers."""
    return LayerProfile(
        model_fingerprint="made up",
        model_name="small pool",
        num_layers=LAYERS,
        num_kv_heads=HEADS,
        demand=(1.0, 1.0, 1.0),
        demand_by_rho={},
        rho=0.0,
        gamma=1.0,
        kind="sensitivity",
        probes_digest="none",
        created="2026-01-01",
        tool_version="0",
        **parts,  # type: ignore[arg-type]
    )


FULL = profile_of(head_shares=((1.5, 0.5), (1.0, 1.0), (0.6, 1.4)), queries=CENTRES)


def run(method: str, profile: LayerProfile, **change: object) -> RoundOutput:
    """One first round of ``method`` on a pool of random keys."""
    g = torch.Generator().manual_seed(1)
    k, v = (torch.randn((LAYERS * SLOTS * HEADS, WIDTH), generator=g) for _ in range(2))
    queries = torch.randn((LAYERS, SETTINGS.window_tokens, QUERY_HEADS, WIDTH), generator=g)
    slots = torch.randperm(SLOTS - 1, generator=g)[: BUDGET + TAIL] + 1
    layers, heads = torch.arange(LAYERS)[:, None, None], torch.arange(HEADS)[None, :, None]
    cells = (layers * SLOTS + slots) * HEADS + heads
    releasable = (torch.arange(BUDGET + TAIL) >= BUDGET).expand(cells.shape)
    work = RoundInput(queries, cells, torch.full((LAYERS, HEADS), BUDGET + TAIL), releasable, BUDGET)
    centres = Centres.of(profile.queries) if profile.queries else None
    work = replace(work, position=BUDGET + TAIL, centres=centres)
    return run_round(method, k, v, replace(work, **change), profile, SETTINGS)  # type: ignore[arg-type]


def test_heads_keep_the_profiles_shares() -> None:
    assert run("wave/profile/rkv", FULL).lengths_LH.tolist() == [[60, 20], [40, 40], [24, 56]]


def test_a_rank_takes_the_shares_of_its_own_heads() -> None:
    swapped = profile_of(head_shares=((0.5, 1.5), (1.0, 1.0), (1.4, 0.6)))
    assert run("wave/profile/rkv", swapped).lengths_LH.tolist() == [[20, 60], [40, 40], [56, 24]]
    wide = replace(swapped, num_kv_heads=4, head_shares=tuple((1.0, 1.0, *row) for row in FULL.head_shares))
    assert run("wave/profile/rkv", wide, first_head=2).lengths_LH.tolist() == [[60, 20], [40, 40], [24, 56]]


def test_triattention_keeps_the_budget_and_heeds_the_position() -> None:
    here, later = run("triattention", FULL), run("triattention", FULL, position=400)
    assert (here.lengths_LH == BUDGET).all()
    assert here.keep_LHN[:, :, -8:].all()
    assert not torch.equal(here.keep_LHN, later.keep_LHN)
    assert torch.equal(here.keep_LHN, run("triattention", FULL).keep_LHN)


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("triattention", "goes by centres of the queries, and the active profile"),
        ("uniform/profile/rkv", "goes by shares of the kv heads, and the active profile"),
        ("wave/profile/triattention", "goes by shares of the kv heads and centres of the queries"),
    ],
)
def test_a_profile_that_lacks_what_a_method_needs_is_refused(method: str, told: str) -> None:
    request = KvRequest(method=method, budget_tokens=64)
    with pytest.raises(ValueError, match=rf"{told}.* activate one that was calibrated with them, or use one of r"):
        check_satisfiable(request, profile_of())
    with pytest.raises(ValueError, match="no layer profile is loaded; activate one, or use one of head-only"):
        check_satisfiable(request, None)
    check_satisfiable(request, FULL)


def test_only_methods_that_can_be_honoured_are_offered() -> None:
    without, layers, everything = (offered_methods(parts) for parts in ((), ("layers",), FULL.parts))
    assert set(layers) - set(without) == {"reasonalloc", "reasonalloc-snapkv", "reasonalloc-gkv", "layer-only"}
    assert set(everything) - set(layers) == {"triattention", "reasonalloc-tri"}
