"""Which replica a request goes to: the rule, and what it comes to on a workload of shared prefixes."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonserve.replica.messages import ChatInput, GenerateCall, PromptInput, TokensInput
from reasonserve.replica.prefixes import chain
from reasonserve.replica.protocol import Sampling
from reasonserve.replica.routing import (
    FADE_S,
    Choice,
    FadingLoads,
    SeenPrefixes,
    SentSlots,
    expected_slots,
    prompt_blocks,
    rank,
)
from reasonserve.replica.scaling import DEMAND_METRIC, POOL_METRIC, KvPressurePolicy, desired_replicas
from reasonserve.replica.sizing import KvAsk


def choice(name, load=0.0, free=1000, matched=0, home=False, suspect=False):
    return Choice(replica_id=name, load=load, free_slots=free, matched_blocks=matched, is_home=home, is_suspect=suspect)


@pytest.mark.parametrize(
    ("choices", "best"),
    [
        ([choice("a"), choice("b", matched=3)], "b"),  # affinity
        ([choice("a", matched=3, home=True, load=50.0), choice("b", matched=3, load=40.0)], "a"),  # its home
        ([choice("a", load=50.0), choice("b", load=40.0)], "b"),  # nothing seen: the less loaded
        ([choice("a", matched=3, free=10), choice("b", matched=1)], "a"),  # what it has seen needs no room
        ([choice("a", matched=3, free=1), choice("b", matched=1)], "b"),  # its lease has no room there
        ([choice("a", matched=3, free=None), choice("b")], "a"),  # not known is no reason to go elsewhere
        ([choice("a", load=500.0, matched=9), choice("b", load=100.0)], "b"),  # above the bound
        ([choice("a", load=110.0, matched=9), choice("b", load=100.0)], "a"),  # within it
        ([choice("a", matched=9, suspect=True), choice("b", load=500.0, free=0)], "b"),
        ([choice("a", suspect=True)], "a"),  # better than nowhere
    ],
)
def test_worked_examples(choices, best):
    assert rank(choices, cost=20.0, slots=100, imbalance=0.1)[0] == best


@given(st.lists(st.builds(choice, st.uuids().map(str), st.floats(0, 1e4), st.integers(0, 500)), min_size=1, max_size=6))
def test_every_replica_is_ranked_and_the_best_is_within_the_bound(choices):
    order = rank(choices, cost=10.0, slots=50, imbalance=0.1)
    assert sorted(order) == sorted(c.replica_id for c in choices)
    best = next(c for c in choices if c.replica_id == order[0])
    mean = (sum(c.load for c in choices) + 10.0) / len(choices)
    assert best.load + 10.0 <= 1.1 * mean + 20.0 + 1e-9


def test_what_was_seen_is_matched_from_the_start_and_forgotten_oldest_first():
    seen = SeenPrefixes(max_blocks=3)
    one, two = chain(b"aabbcc", block_bytes=2, salt="t"), chain(b"aabbdd", block_bytes=2, salt="t")
    assert len(set(one + two)) == 4
    seen.add(one, "x")
    assert seen.matched(two) == {"x": 2}
    assert seen.matched(chain(b"xxbbcc", block_bytes=2, salt="t")) == {}
    assert seen.matched(chain(b"aabbcc", block_bytes=2, salt="other tenant")) == {}
    seen.add(two, "y")  # room for three: the end of the first is forgotten
    assert len(seen) == 3
    assert list(seen.matched(one).items()) == [("x", 2), ("y", 2)]  # x saw it first
    seen.keep(["y"])
    assert seen.matched(two) == {"y": 3}


def test_loads_fade_and_a_new_replica_begins_at_the_mean():
    loads = FadingLoads()
    loads.add("a", 100.0, now=0.0)
    loads.add("b", 300.0, now=0.0)
    assert loads.of("a", now=FADE_S) == pytest.approx(100.0 / 2.718281828)
    loads.keep(["a", "b", "c"], now=0.0)
    assert loads.of("c", now=0.0) == pytest.approx(200.0)
    loads.keep(["a"], now=0.0)
    assert loads.of("b", now=0.0) == 0.0


def test_slots_sent_count_until_the_replica_reports_again_or_the_request_ends():
    sent = SentSlots()
    sent.reported("a", 1)
    sent.add("a", "1", "t", 50)
    sent.add("a", "2", "t", 30)
    sent.reported("a", 1)
    assert (sent.of("a", "t"), sent.of("a", "u"), sent.of("b", "t")) == (80, 0, 0)
    sent.ended("a", "1")
    assert sent.of("a", "t") == 30
    sent.reported("a", 2)
    assert sent.of("a", "t") == 0
    sent.ended("a", "2")
    assert sent.of("a", "t") == 0


def call(given, **kv):
    return GenerateCall(
        request_id="r", tenant_id="t", input=given, sampling=Sampling(max_new_tokens=1000), kv=KvAsk(**kv)
    )


def test_every_kind_of_input_has_blocks_and_a_size():
    text = call(PromptInput(text="x" * 400), budget_tokens=100)
    chat = call(ChatInput(messages=(("user", "x" * 400),)), budget_tokens=100)
    tokens = call(TokensInput(ids=(7,) * 100), budget_tokens=100)
    assert [len(prompt_blocks(c)) for c in (text, chat, tokens)] == [3, 3, 3]
    assert [expected_slots(c) for c in (text, chat, tokens)] == [328, 329, 328]
    assert expected_slots(call(TokensInput(ids=(7,) * 100), method="full")) == 1100


def run_workload(choose, *, replicas=4, prefixes=24, requests=2000):
    """Sends requests with shared prefixes; returns the share of prompt blocks found and the worst over the mean load.

    Each replica's cache holds the prompts of its last 8 distinct prefixes.
    """
    rng = random.Random(5)
    caches = {f"r{i}": [] for i in range(replicas)}
    served = dict.fromkeys(caches, 0)
    hits = 0
    for step in range(requests):
        prefix = min(int(rng.expovariate(0.15)), prefixes - 1)
        chosen = choose(prefix, step)
        cache = caches[chosen]
        hits += prefix in cache
        cache[:] = ([prefix] + [p for p in cache if p != prefix])[:4]
        served[chosen] += 1
    return hits / requests, max(served.values()) / (requests / replicas)


def test_on_shared_prefixes_affinity_finds_more_than_chance_and_stays_in_balance():
    rng, seen, loads = random.Random(6), SeenPrefixes(), FadingLoads()
    names = {p: chain(bytes([p]) * 512, block_bytes=128, salt="t") for p in range(24)}
    ids = [f"r{i}" for i in range(4)]

    def by_affinity(prefix, step):
        now, matched = step / 20, seen.matched(names[prefix])
        home = next(iter(matched), None)
        choices = [choice(r, loads.of(r, now=now), matched=matched.get(r, 0), home=r == home) for r in ids]
        chosen = rank(choices, cost=100.0, slots=10, imbalance=0.1)[0]
        seen.add(names[prefix], chosen)
        loads.add(chosen, 100.0, now=now)
        return chosen

    counts = dict.fromkeys(ids, 0)

    def by_two_choices(prefix, step):
        chosen = min(rng.sample(ids, 2), key=counts.__getitem__)
        counts[chosen] += 1
        return chosen

    hits, worst = run_workload(by_affinity)
    chance, _ = run_workload(by_two_choices)
    assert hits >= 1.5 * chance
    assert worst < 1.2


@pytest.mark.parametrize(
    ("demand", "pools", "target", "replicas"),
    [
        ([0.0], [1000.0], 0.8, 1),
        ([800.0], [1000.0], 0.8, 1),
        ([801.0], [1000.0], 0.8, 2),
        ([100.0, 1900.0], [1000.0, 1000.0], 0.8, 3),  # the sum counts, not who has it
        ([300.0, 100.0], [1000.0, 1000.0], 0.8, 1),
    ],
)
def test_replicas_follow_the_pressure(demand, pools, target, replicas):
    assert desired_replicas(demand, pools, target) == replicas


def test_the_policy_holds_until_somebody_reports():
    class Context:
        target_num_replicas = 3
        aggregated_metrics = None

    context = Context()
    assert KvPressurePolicy(0.8)(context) == (3, {})
    context.aggregated_metrics = {DEMAND_METRIC: {"a": 1500.0}, POOL_METRIC: {"a": 1000.0}}
    assert KvPressurePolicy(0.8)(context) == (2, {})
