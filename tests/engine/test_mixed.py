"""A mixed batch in two parts, which together are the whole, and the positions of its running requests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reasonserve.engine.mixed import _OF_A_REQUEST, _OF_A_TOKEN, draw_at_true_positions, set_true_positions, split

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SGLang's imports

chunks = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def batch_of(chunks: list[int], running: int) -> Any:
    """A batch of prompts' chunks and running requests whose rows rounds have shortened by 100."""
    extends = [*chunks, *[1] * running]
    prefixes = [10 * i for i in range(len(extends))]
    lengths = torch.tensor(extends) + torch.tensor(prefixes)
    tokens = sum(extends)
    return SimpleNamespace(
        batch_size=len(extends),
        extend_num_tokens=tokens,
        req_pool_indices=torch.arange(len(extends)),
        seq_lens=lengths,
        seq_lens_cpu=lengths,
        seq_lens_sum=int(lengths.sum()),
        orig_seq_lens=(lengths + 100).int(),
        extend_seq_lens=torch.tensor(extends),
        extend_seq_lens_cpu=extends,
        extend_prefix_lens=torch.tensor(prefixes),
        extend_prefix_lens_cpu=prefixes,
        extend_start_loc=None,
        forward_mode=None,
        input_ids=torch.arange(tokens),
        positions=torch.arange(tokens),
        out_cache_loc=torch.arange(tokens) + 50,
    )


@given(chunks, st.integers(1, 6))
def test_the_parts_are_the_whole(chunks: list[int], running: int) -> None:
    whole = batch_of(chunks, running)
    prompts, decode = split(whole, running)
    assert (prompts.batch_size, decode.batch_size) == (len(chunks), running)
    assert (len(prompts.input_ids), len(decode.input_ids)) == (sum(chunks), running)
    assert prompts.extend_num_tokens == sum(chunks)
    assert prompts.seq_lens_sum + decode.seq_lens_sum == whole.seq_lens_sum
    assert decode.forward_mode.is_decode()
    for name in (*_OF_A_REQUEST, *_OF_A_TOKEN):
        parts = [getattr(part, name) for part in (prompts, decode)]
        if parts[0] is not None:
            assert [*parts[0], *parts[1]] == [*getattr(whole, name)]


@given(chunks, st.integers(1, 6))
def test_running_requests_are_where_they_would_be_without_rounds(chunks: list[int], running: int) -> None:
    batch = batch_of(chunks, running)
    rows, before = batch.seq_lens.clone(), batch.positions.clone()
    set_true_positions(batch, running=running)
    assert torch.equal(batch.positions[:-running], before[:-running])
    assert torch.equal(batch.positions[-running:], rows[-running:] + 99)

    def sample(*given: Any) -> Any:
        return given[2].seq_lens - 1

    drawn_at = draw_at_true_positions(sample, None, None, cast(Any, batch))
    assert torch.equal(drawn_at[:-running], rows[:-running] - 1)
    assert torch.equal(drawn_at[-running:], batch.positions[-running:])
    assert torch.equal(batch.seq_lens, rows)
