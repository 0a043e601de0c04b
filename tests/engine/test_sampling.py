"""Seeded draws: reproducible, independent of the batch, and from the right distribution."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from reasonserve.engine.sampling import mix_seed, multinomial_with_seed, sample_with_min_p, scale_repeated


def test_a_row_draws_the_same_in_any_batch() -> None:
    logprobs = torch.randn((5, 50), generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    seeds, positions = torch.tensor([3, 1, 4, 1, 5]), torch.tensor([9, 2, 6, 5, 3])
    together = multinomial_with_seed(logprobs, seeds, positions)
    alone = [multinomial_with_seed(logprobs[i : i + 1], seeds[i : i + 1], positions[i : i + 1]) for i in range(5)]
    assert torch.equal(together, torch.cat(alone))


def test_draws_follow_the_distribution() -> None:
    probs = torch.tensor([0.5, 0.3, 0.2, 0.0])
    draws = 4000
    rows = probs.log().expand(draws, 4)
    sampled = multinomial_with_seed(rows, torch.full((draws,), 7), torch.arange(draws)).flatten()
    counts = torch.bincount(sampled, minlength=4).double()
    expected = probs.double() * draws
    chi_square = ((counts[:3] - expected[:3]) ** 2 / expected[:3]).sum()
    assert counts[3] == 0
    assert chi_square < 13.8  # 99.9 % point at two degrees of freedom; the draw is seeded, so this never flickers


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**6))
def test_neighbouring_positions_get_different_seeds(seed: int, position: int) -> None:
    assert mix_seed(seed, position) != mix_seed(seed, position + 1)


def test_min_p_beforehand_keeps_what_sglang_keeps_afterwards() -> None:
    """SGLang's own order is top-k and top-p by rank, then min-p; here it filters what it is handed."""

    def kept(probs: torch.Tensor, top_ks: torch.Tensor, top_ps: torch.Tensor, min_ps: torch.Tensor, need: bool, *_):
        sorted_probs, index = probs.sort(dim=-1, descending=True)
        mass_before = sorted_probs.cumsum(-1) - sorted_probs
        keep = (torch.arange(probs.shape[-1]) < top_ks.view(-1, 1)) & (mass_before <= top_ps.view(-1, 1))
        if need:
            keep &= sorted_probs >= sorted_probs[:, :1] * min_ps.view(-1, 1)
        return torch.zeros_like(probs).scatter(-1, index, sorted_probs * keep)

    generator = torch.Generator().manual_seed(1)
    probs = torch.rand((64, 40), generator=generator).pow(6).softmax(-1)
    top_ks = torch.randint(1, 41, (64,), generator=generator)
    top_ps, min_ps = torch.rand((2, 64), generator=generator)
    options = (probs, top_ks, top_ps, min_ps, True)
    expected = kept(*options)
    assert torch.equal(sample_with_min_p(kept, *options, torch.zeros(64), torch.zeros(64)), expected)
    assert torch.equal(sample_with_min_p(kept, *options, None, torch.zeros(64)), expected)
    assert not torch.equal(kept(probs, top_ks, top_ps, min_ps, False), expected)


def test_a_repetition_penalty_makes_tokens_less_probable_whatever_their_sign() -> None:
    logits = torch.tensor([[2.0, -2.0, 2.0, -2.0, 0.0]])
    scale_repeated(logits, torch.tensor([[1.0, 1.0, 4.0, 4.0, 4.0]]))
    assert logits.tolist() == [[2.0, -2.0, 0.5, -8.0, 0.0]]
