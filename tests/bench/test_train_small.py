"""Training of the small models, and the one whose heads were learnt apart."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from reasonserve.bench import train_small
from reasonserve.bench.tasks import chaser, words

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def shared():
    return LlamaForCausalLM.from_pretrained(DATA / "pointer-chaser", dtype=torch.float32)


def test_a_split_model_keeps_the_even_heads_and_learns_the_odd_ones_anew(shared):
    split, again, other = (train_small.split_heads(shared, seed) for seed in (1, 1, 2))
    assert (shared.config.num_key_value_heads, split.config.num_key_value_heads) == (2, 4)
    for before, *after in zip(*(m.model.layers for m in (shared, split, again, other)), strict=True):
        for name in ("k_proj", "v_proj"):
            old = getattr(before.self_attn, name).weight.unflatten(0, (2, 32))
            new, same, unlike = (getattr(layer.self_attn, name).weight.unflatten(0, (4, 32)) for layer in after)
            assert torch.equal(new[::2], old)
            assert torch.equal(new, same)
            assert not torch.isclose(new[1::2], old).all(-1).any()
            assert not torch.equal(new[1::2], unlike[1::2])


def test_with_copies_alone_it_answers_as_before(shared, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "normal_", lambda tensor, *_, **__: tensor)
    ids = torch.tensor([words.encode(chaser.make("test", 0, 8).prompt)])
    with torch.no_grad():
        torch.testing.assert_close(train_small.split_heads(shared, 1)(ids).logits, shared(ids).logits)


def test_training_lowers_the_loss_and_learns_answers_alone():
    torch.manual_seed(0)
    model = train_small.new_model(0)
    ids, targets = next(train_small.batches(0, 2, (4, 4)))
    assert (targets == -100).sum() > 0
    losses = list(train_small.train(model, 8, 3e-3, iter([(ids, targets)] * 8)))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["pointer-chaser", "pointer-chaser-heads"])
def test_a_committed_model_writes_the_whole_chain(name):
    model = LlamaForCausalLM.from_pretrained(DATA / name, dtype=torch.float32)
    sample = chaser.make("test", 0, 24)
    prompt, answer = words.encode(sample.prompt), words.encode(sample.answer)
    with torch.no_grad():
        said = model(torch.tensor([prompt + answer])).logits.argmax(-1)[0, len(prompt) - 1 : -1]
    assert said.tolist() == answer
