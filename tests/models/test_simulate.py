"""The simulated cache computes what a mask over the full cache computes, and rounds as the engine does."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import reasonalloc
from reasonalloc.centres import QueryCentres
from reasonalloc.scorers import Centres
from reasonserve.models.simulate import ATTENTION, Rounds, replay
from reasonserve.models.traces import Trace

WINDOW = 16


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.4,
        attn_implementation=ATTENTION,
    )
    return LlamaForCausalLM(config).eval()


def traces() -> list[Trace]:
    chance = torch.Generator().manual_seed(1)
    lengths = ((90, 12), (61, 40), (20, 9))
    return [Trace(tuple(torch.randint(64, (n,), generator=chance).tolist()), prompt) for n, prompt in lengths]


def hidden_of(model, rounds, split):
    states = [torch.zeros(len(trace.tokens), 32) for trace in traces()]

    def read(request, start, part):
        states[request][start : start + len(part)] = part

    replay(model, traces(), rounds, split, read)
    return states


def masked(model, trace: Trace, dropped: dict[int, list[int]]) -> torch.Tensor:
    """Plain attention, where each dropped position is hidden from all that comes after the round it fell in."""
    n = len(trace.tokens)
    mask = torch.ones(n, n, dtype=torch.bool).tril()
    for stored, positions in dropped.items():
        mask[stored:, positions] = False
    plain = LlamaForCausalLM(LlamaConfig.from_dict(model.config.to_dict() | {"attn_implementation": "sdpa"}))
    plain.load_state_dict(model.state_dict())
    plain.set_attn_implementation("sdpa")
    with torch.inference_mode():
        return plain.model(torch.tensor([trace.tokens]), attention_mask=mask[None, None]).last_hidden_state[0]


def test_keeping_all_changes_nothing(model):
    found = hidden_of(model, Rounds("streaming", 32, WINDOW), lambda _, lengths: lengths)
    for states, trace in zip(found, traces(), strict=True):
        assert torch.allclose(states, masked(model, trace, {}), atol=1e-5)


@pytest.mark.parametrize("mode", ["evictable", "pinned"])
def test_evicting_is_masking(model, mode):
    """StreamingLLM keeps the first four and the newest, so what falls in each round is known in advance."""
    budget = 32
    rounds = Rounds("streaming", budget, WINDOW, mode)
    found = hidden_of(model, rounds, lambda _, lengths: torch.full_like(lengths, budget))
    for states, trace in zip(found, traces(), strict=True):
        dropped, pinned = {}, rounds.pinned(trace)
        for stored in rounds.stored_at(trace):
            dropped[stored] = list(range(pinned + 4, stored - (budget - 4)))
        assert torch.allclose(states, masked(model, trace, dropped), atol=1e-5)
    assert any(rounds.stored_at(trace) for trace in traces())


def test_rounds_run_when_the_engine_runs_them():
    long = Trace(tuple(range(300)), 40)
    assert Rounds("rkv", 64, 32).stored_at(long) == [96, 128, 160, 192, 224, 256, 288]
    assert Rounds("rkv", 64, 32, "pinned").stored_at(long) == [136, 168, 200, 232, 264, 296]
    assert Rounds("rkv", 32, 32).stored_at(Trace(tuple(range(200)), 150)) == [166, 198]
    assert Rounds("rkv", 64, 32).stored_at(Trace(tuple(range(96)), 40)) == []


def test_scorers_that_remember_are_refused():
    with pytest.raises(ValueError, match="carries a statistic"):
        Rounds("h2o", 64, 32)


def test_centres_meet_keys_at_their_positions(model):
    """First rounds score as over the plain model's own cache, at the place of the next token."""
    centres = QueryCentres.pack(
        2, 4, model.model.rotary_emb.inv_freq.tolist(), [((5 * i) % 7 - 3) / 3 for i in range(96)]
    )
    rounds = Rounds("triattention", 32, WINDOW, centres=centres)
    seen = []

    def split(scores, lengths):
        seen.append(scores)
        return torch.full_like(lengths, 32)

    hidden_of(model, rounds, split)
    trace, plain = traces()[0], LlamaForCausalLM(model.config).eval()
    plain.load_state_dict(model.state_dict())
    plain.set_attn_implementation("sdpa")
    stored = rounds.stored_at(trace)[0]
    with torch.inference_mode():
        cache = plain(torch.tensor(trace.tokens[:stored])[None]).past_key_values
    keys = torch.stack([layer.keys[0] for layer in cache.layers])
    expected = reasonalloc.score("triattention", torch.zeros(2, 8, 4, 8), keys, keys, centres=Centres.of(centres))
    torch.testing.assert_close(seen[0], expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="give those of a profile"):
        Rounds("triattention", 32, WINDOW)
