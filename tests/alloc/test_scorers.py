"""Every scorer against its formula, and what all of them promise."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reasonalloc
from reasonalloc.centres import QueryCentres
from reasonalloc.methods import SCORERS as NAMES
from reasonalloc.scorers import SCORERS, Candidates, Centres, reference, triattention

HEAD_DIM, QUERIES = 8, 16


def candidates(make, width, *, rows=2, heads=2, group=3, num_queries=QUERIES, dtype=torch.float32):
    lengths = make.lengths(rows, heads, width=width)
    return Candidates(
        queries_RWQD=make.normal(rows, num_queries, heads * group, HEAD_DIM).to(dtype),
        keys_RHND=make.keys(lengths, width, HEAD_DIM).to(dtype),
        values_RHND=make.poisoned(make.normal(rows, heads, width, HEAD_DIM), lengths).to(dtype),
        lengths_RH=lengths,
        budget=width // 2,
        statistic_RHN=make.normal(rows, heads, width).abs(),
        seeds_R=torch.arange(rows) + 7,
        positions_R=torch.arange(rows) * 900 + width,
        centres=make.centres(rows, heads * group, HEAD_DIM),
    )


def test_every_name_has_a_scorer_and_a_formula():
    assert list(SCORERS) == list(NAMES) == list(reference.FORMULAS)
    assert all(SCORERS[name].window == reference.FORMULAS[name][1] for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12, deadline=None)
@given(
    width=st.integers(0, 70),
    group=st.sampled_from([1, 3, 4, 8]),
    num_queries=st.sampled_from([1, 8, 16, 21]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 999),
)
def test_equals_its_formula(ragged, name, width, group, num_queries, dtype, seed):
    given_ = candidates(ragged(seed), width, group=group, num_queries=num_queries, dtype=dtype)
    scored, expected = SCORERS[name].score(given_), reference.score(name, given_)
    assert scored.scores_RHN.dtype == torch.float32
    torch.testing.assert_close(scored.scores_RHN, expected.scores_RHN, rtol=1e-4, atol=1e-5, equal_nan=False)
    assert (scored.statistic_RHN is None) == (SCORERS[name].statistic is None)
    if scored.statistic_RHN is not None:
        valid = torch.arange(width) < given_.lengths_RH[..., None]
        statistics = scored.statistic_RHN[valid], expected.statistic_RHN[valid]
        torch.testing.assert_close(*statistics, rtol=1e-4, atol=1e-5, equal_nan=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_scored_alike_in_any_company(ragged, name):
    """Neither other rows nor the width of the padding change a score."""
    both = candidates(ragged(3), 40)
    first = {field: getattr(both, field)[:1] for field in ("queries_RWQD", "lengths_RH", "seeds_R", "positions_R")}
    first["centres"] = replace(
        both.centres, centres_RQD=both.centres.centres_RQD[:1], spreads_RQF=both.centres.spreads_RQF[:1]
    )
    for field in ("keys_RHND", "values_RHND", "statistic_RHN"):
        tensor = getattr(both, field)[:1]
        first[field] = torch.cat([tensor, torch.full_like(tensor[:, :, :9], torch.nan)], dim=2)
    alone = SCORERS[name].score(Candidates(**first, budget=both.budget)).scores_RHN
    together = SCORERS[name].score(both).scores_RHN
    torch.testing.assert_close(alone[:, :, :40], together[:1], rtol=1e-6, atol=1e-6)
    assert (alone[:, :, 40:] == -torch.inf).all()


@pytest.mark.parametrize("name", NAMES)
def test_only_seeded_scorers_heed_the_seed(ragged, name):
    c = candidates(ragged(4), 60, rows=1)
    inputs = c.queries_RWQD[0], c.keys_RHND[0].nan_to_num(), c.values_RHND[0].nan_to_num()
    one, again, other = (reasonalloc.score(name, *inputs, seed=seed, centres=c.centres) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert torch.equal(one, other) == (not SCORERS[name].seeded)


@pytest.mark.parametrize("name", ["vase", "random"])
def test_rows_and_heads_draw_on_their_own(ragged, name):
    c = candidates(ragged(5), 60, rows=1)
    keys = c.keys_RHND[:, :1].nan_to_num().expand(2, 2, -1, -1)
    queries = c.queries_RWQD[:, :, :3].repeat(2, 1, 2, 1)
    scores = reasonalloc.score(name, queries, keys, keys, budget=8)
    assert len({tuple(row.tolist()) for row in scores.flatten(0, 1)}) == 4


def test_one_layer_is_a_row_of_its_own(ragged):
    c = candidates(ragged(6), 30, rows=1)
    layer = c.queries_RWQD[0], c.keys_RHND[0], c.values_RHND[0]
    scores = reasonalloc.score("rkv", *layer, lengths=c.lengths_RH[0])
    assert scores.shape == (2, 30)
    assert torch.equal(scores, SCORERS["rkv"].score(c).scores_RHN[0])


def test_gkv_remembers_what_was_attended_to(ragged):
    """A cell that once had the most attention outlives others although nobody looks at it any more."""
    c = candidates(ragged(7), 40, rows=1, heads=1)
    inputs = c.queries_RWQD[0], c.keys_RHND[0], c.values_RHND[0]
    remembered = torch.zeros(1, 40)
    fresh = reasonalloc.score("gkv", *inputs, lengths=torch.tensor([40]), statistic=remembered)
    remembered[0, 5] = 1.25
    later = reasonalloc.score("gkv", *inputs, lengths=torch.tensor([40]), statistic=remembered)
    assert later[0, 5] - fresh[0, 5] == pytest.approx(0.5 - 0.5 * float(_attention(c)[5]), abs=1e-5)
    assert torch.equal(later[0, 6:], fresh[0, 6:])


def _attention(c):
    head = reference._head(c, torch.zeros(1, 1, 40), 0, 0, 40)
    attention = head.attention(16, 16, "causal", "max")[:24]
    return attention / attention.max()


def test_vase_draws_by_attention():
    """Without large ranges the k best of log p plus Gumbel noise are a draw without replacement: check the first."""
    torch.manual_seed(0)
    keys = torch.randn(1, 1, 24, 4).expand(3000, 1, 24, 4)
    queries = torch.randn(1, 16, 1, 4).expand(3000, 16, 1, 4)
    scores = reasonalloc.score("vase", queries, keys, keys, budget=0)[:, 0, :8]
    frequency = torch.bincount(scores.argmax(dim=1), minlength=8) / 3000
    weights = reference.observe.window_attention(queries[:1], keys[:1], torch.tensor([[24]]), window=16, group="mean")
    smooth = torch.nn.functional.avg_pool1d(weights[:, :, :8], 5, stride=1, padding=2).flatten()
    assert (frequency - smooth / smooth.sum()).abs().max() < 0.03


def test_triattention_asks_for_centres(ragged):
    c = candidates(ragged(8), 30, rows=1)
    with pytest.raises(ValueError, match="no centres of the model's queries; give a profile's"):
        reasonalloc.score("triattention", c.queries_RWQD[0], c.keys_RHND[0], c.values_RHND[0])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), missing=st.integers(0, 4000))
def test_triattention_needs_no_keys_position(ragged, seed, missing):
    """The published score from keys before RoPE and their positions, most of which are long evicted."""
    make = ragged(seed)
    centres, bare = make.centres(1, 3, HEAD_DIM), make.normal(40, HEAD_DIM)
    positions = torch.sort(torch.randperm(missing + 40)[:40]).values.double()
    pairs, half = torch.complex(*bare.double().chunk(2, dim=1)), HEAD_DIM // 2
    stored = pairs * torch.polar(torch.ones(40, half).double(), positions[:, None] * centres.frequencies_F)
    keys = torch.cat([stored.real, stored.imag], dim=1).float()[None]
    scores = reasonalloc.score("triattention", make.normal(8, 3, HEAD_DIM), keys, keys, position=5000, centres=centres)
    best = torch.full((32,), -torch.inf).double()
    for head in range(3):
        centre, mean = torch.complex(*centres.centres_RQD[0, head].double().chunk(2)), torch.zeros(32).double()
        for ahead in triattention.OFFSETS:
            turn = centres.frequencies_F * (5000 + ahead - positions[:32, None])
            mean += (centre * pairs[:32].conj() * torch.polar(torch.ones_like(turn), turn)).real.sum(dim=1) / 17
        raw = mean + (centres.spreads_RQF[0, head] * pairs[:32].abs()).sum(dim=1)
        best = torch.maximum(best, (raw - raw.mean()) / raw.std(correction=0))
    torch.testing.assert_close(scores[0, :32].double(), best, rtol=1e-3, atol=1e-3)


def test_triattention_keeps_what_the_coming_query_attends_to():
    """All queries at one centre that RoPE does not turn: the key that points its way comes first."""
    centres = Centres(
        frequencies_F=torch.zeros(4).double(), centres_RQD=torch.ones(1, 1, 8), spreads_RQF=torch.zeros(1, 1, 4)
    )
    keys = torch.zeros(1, 20, 8)
    keys[0, 3], keys[0, 7] = 1.0, -1.0
    scores = reasonalloc.score("triattention", torch.ones(8, 1, 8), keys, keys, centres=centres)[0, :12]
    assert (int(scores.argmax()), int(scores.argmin())) == (3, 7)


def test_a_rank_takes_its_own_heads_of_the_centres():
    numbers = [float(number) for number in range(2 * 4 * 3 * 2)]
    queries = QueryCentres.pack(2, 4, (1.0, 0.5), numbers)
    whole, part = Centres.of(queries), Centres.of(queries, first=2, count=2)
    laid = torch.tensor(numbers).view(2, 4, 3, 2)
    assert torch.equal(whole.centres_RQD, laid[:, :, :2].flatten(2))
    assert torch.equal(whole.spreads_RQF, laid[:, :, 2])
    assert torch.equal(part.centres_RQD, whole.centres_RQD[:, 2:])
    assert torch.equal(part.spreads_RQF, whole.spreads_RQF[:, 2:])
