"""Chunks that share a message: nothing is lost, changed or held back for long, whenever they come."""

import asyncio
from contextlib import aclosing
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonserve.replica.coalesce import Coalescer
from reasonserve.replica.merge import merged
from reasonserve.replica.messages import Delta, Ending
from reasonserve.replica.protocol import TokenChance, TokenLogprob

DELAY_S = 0.02
END = Ending(
    finish_reason="stop",
    input_tokens=1,
    cached_tokens=0,
    output_tokens=1,
    method="full",
    budget_tokens=0,
    profile_id="",
    peak_slots=1,
    rounds=0,
    kept_cells=0,
    evicted_cells=0,
    round_seconds=0.0,
)


def delta(number, *, index=0, last=False):
    return Delta(
        index=index,
        text=f"t{number} ",
        reasoning=f"r{number} ",
        token_ids=(number,),
        logprobs=(TokenLogprob(TokenChance(number, f"t{number} ", -1.0), ()),),
        held_slots=number,
        rounds=0,
        ending=END if last else None,
    )


gaps = st.one_of(st.just(0.0), st.floats(0, 3 * DELAY_S))
arrivals = st.lists(st.tuples(gaps, st.integers(0, 2)), min_size=1, max_size=40)


def simulate(arrivals, delay_s):
    """Returns (number, index, when) of what came and (delta, when) of what went, on a clock of its own."""
    coalescer, now, came, went = Coalescer(delay_s), 100.0, [], []
    for number, (gap, index) in enumerate(arrivals):
        until = now + gap
        while (due := coalescer.due_at()) is not None and max(due, now) <= until:
            now = max(due, now)
            went += [(sent, now) for sent in coalescer.take(now=now)]
        now = until
        came.append((number, index, now))
        coalescer.add(delta(number, index=index))
        went += [(sent, now) for sent in coalescer.take(now=now)]
    while (due := coalescer.due_at()) is not None:
        now = max(due, now)
        went += [(sent, now) for sent in coalescer.take(now=now)]
    return came, went


@given(arrivals, st.sampled_from([0.0, DELAY_S]))
def test_the_concatenation_is_what_came(arrivals, delay_s):
    came, went = simulate(arrivals, delay_s)
    for index in range(3):
        numbers = [number for number, i, _ in came if i == index]
        sent = [d for d, _ in went if d.index == index]
        assert [t for d in sent for t in d.token_ids] == numbers
        assert [place.token.token_id for d in sent for place in d.logprobs] == numbers
        assert "".join(d.text for d in sent) == "".join(f"t{n} " for n in numbers)
        assert "".join(d.reasoning for d in sent) == "".join(f"r{n} " for n in numbers)
        assert [d.held_slots for d in sent] == [d.token_ids[-1] for d in sent]  # the newest figures


@given(arrivals)
def test_nothing_waits_longer_than_the_delay_and_the_first_goes_at_once(arrivals):
    came, went = simulate(arrivals, DELAY_S)
    sent_at = {token: when for d, when in went for token in d.token_ids}
    assert all(0 <= sent_at[number] - when <= DELAY_S + 1e-9 for number, _, when in came)
    for index in range(3):
        mine = [(number, when) for number, i, when in came if i == index]
        if mine:
            assert sent_at[mine[0][0]] == mine[0][1]


@given(arrivals)
def test_an_output_makes_at_most_one_message_in_the_delay(arrivals):
    _, went = simulate(arrivals, DELAY_S)
    for index in range(3):
        times = [when for d, when in went if d.index == index]
        assert all(later - earlier >= DELAY_S - 1e-9 for earlier, later in pairwise(times))


def test_the_end_goes_at_once_with_what_was_held():
    coalescer = Coalescer(10.0)
    coalescer.add(delta(0))
    assert [d.token_ids for d in coalescer.take(now=1.0)] == [(0,)]
    coalescer.add(delta(1))
    assert coalescer.take(now=1.0) == []
    coalescer.add(delta(2, last=True))
    (end,) = coalescer.take(now=1.0)
    assert (end.token_ids, end.ending) == ((1, 2), END)


async def numbers(index, count, *, fail=False, closed=None):
    try:
        for number in range(count):
            yield delta(number, index=index, last=number + 1 == count and not fail)
            await asyncio.sleep(0)
        if fail:
            raise RuntimeError("broken")
        if count > 100:
            await asyncio.Event().wait()
    finally:
        if closed is not None:
            closed.append(index)


async def test_streams_are_merged_to_their_ends():
    streams = [numbers(index, 10 + index) for index in range(3)]
    got = [d async for d in merged(streams, Coalescer(DELAY_S))]
    for index in range(3):
        mine = [d for d in got if d.index == index]
        assert [t for d in mine for t in d.token_ids] == list(range(10 + index))
        assert mine[-1].ending == END
        assert len(mine) == 2  # the first one at once, all others with the end


async def test_a_failure_comes_after_what_was_made_before_it():
    got, closed = [], []

    async def consume():
        streams = [numbers(0, 5, fail=True, closed=closed), numbers(1, 1000, closed=closed)]
        async for d in merged(streams, Coalescer(60.0)):
            got.append(d)

    with pytest.raises(RuntimeError, match="broken"):
        await consume()
    assert [t for d in got if d.index == 0 for t in d.token_ids] == list(range(5))
    assert sorted(closed) == [0, 1]


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_whoever_leaves_closes_every_stream(how):
    closed, started = [], asyncio.Event()

    async def consume():
        streams = [numbers(index, 1000, closed=closed) for index in range(3)]
        async with aclosing(merged(streams, Coalescer(60.0))) as messages:
            async for _ in messages:
                started.set()
                if how == "closed":
                    return

    task = asyncio.create_task(consume())
    await started.wait()
    await asyncio.sleep(0)
    if how == "cancelled":
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert sorted(closed) == [0, 1, 2]
