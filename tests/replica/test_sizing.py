"""Sizes of reservations, against worked examples and against the engine's own bookkeeping."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonserve.errors import InvalidRequestError
from reasonserve.kv import METHODS, PROMPT_MODES, KvRequest
from reasonserve.replica.admission import Admission, Entry, Lease
from reasonserve.replica.fake_engine import FakeEngine
from reasonserve.replica.protocol import EngineRequest, Sampling
from reasonserve.replica.sizing import KvAsk, TenantTerms, reservation_slots, resolve_kv, shrink_to_fit

TERMS = TenantTerms(
    tenant_id="t", slots=1000, guaranteed_slots=0, limit_slots=1000, min_tokens=32, default_tokens=256, max_tokens=512
)

requests = st.builds(
    KvRequest,
    method=st.sampled_from(METHODS),
    budget_tokens=st.integers(32, 90),
    buffer_tokens=st.integers(16, 40),
    prompt_mode=st.sampled_from(PROMPT_MODES),
)


@pytest.mark.parametrize(
    ("method", "prompt_mode", "prompt", "max_new", "slots"),
    [
        ("full", "pinned", 100, 4000, 4100),
        ("r-kv", "pinned", 100, 4000, 100 + 256 + 128),
        ("r-kv", "pinned", 100, 50, 150),  # ends before its budget is full
        ("reasonalloc", "evictable", 1000, 4000, 1000 + 256 + 128),  # held whole until the first round
        ("reasonalloc", "evictable", 100, 50, 150),
    ],
)
def test_worked_examples(method, prompt_mode, prompt, max_new, slots):
    kv = KvRequest(method=method, budget_tokens=256, buffer_tokens=128, prompt_mode=prompt_mode)
    assert reservation_slots(kv, prompt_tokens=prompt, max_new_tokens=max_new) == slots


@given(kv=requests, prompt=st.integers(1, 120), max_new=st.integers(1, 300))
def test_an_engine_reaches_its_reservation_and_never_more(kv, prompt, max_new):
    async def peak():
        request = EngineRequest(
            request_id="r", input_ids=(65,) * prompt, sampling=Sampling(max_new_tokens=max_new), kv=kv
        )
        return [chunk.kv.peak_slots async for chunk in FakeEngine().generate(request)][-1]

    assert asyncio.run(peak()) == reservation_slots(kv, prompt_tokens=prompt, max_new_tokens=max_new)


@pytest.mark.parametrize("budget", [31, 513])
def test_a_budget_outside_the_tenants_range_is_refused_with_the_range(budget):
    with pytest.raises(InvalidRequestError, match="32 to 512") as caught:
        resolve_kv(KvAsk(budget_tokens=budget), TERMS, buffer_tokens=128)
    assert caught.value.field == "kv.budget_tokens"


def test_defaults_are_the_tenants():
    assert resolve_kv(KvAsk(), TERMS, buffer_tokens=99) == KvRequest(
        method="reasonalloc", budget_tokens=256, buffer_tokens=99
    )
    assert resolve_kv(KvAsk(method="full"), TERMS, buffer_tokens=99).budget_tokens == 0


def test_every_output_of_a_request_counts():
    admission = Admission(pool_slots=1000, buffer_tokens=128)
    admission.apply_lease(Lease(epoch=1, ttl_s=10.0, tenants={"t": TERMS}, num_replicas=1), granted_at=0.0, now=0.0)
    size = {"tenant_id": "t", "prompt_ids": (1,) * 10, "max_new_tokens": 1000, "outputs": 3}
    with pytest.raises(InvalidRequestError):  # three times 10 + 256 + 128 never fit into 1000
        admission.enter(Entry(request_id="r", ask=KvAsk(budget_tokens=256), **size), now=1.0)
    admission.enter(Entry(request_id="r", ask=KvAsk(), **size), now=1.0)
    granted, _ = admission.take()
    assert granted["r"].kv.budget_tokens == 1000 // 3 - 10 - 128
    assert admission.reserved_by("t") == 999


@given(
    kv=requests,
    free=st.integers(0, 500),
    prompt=st.integers(1, 120),
    max_new=st.integers(1, 300),
    outputs=st.integers(1, 3),
)
def test_shrinking_finds_the_largest_budget_that_fits(kv, free, prompt, max_new, outputs):
    size = {"prompt_tokens": prompt, "max_new_tokens": max_new, "outputs": outputs}
    shrunk = shrink_to_fit(kv, free_slots=free, min_tokens=32, **size)
    candidates = [
        KvRequest(method=kv.method, budget_tokens=b, buffer_tokens=kv.buffer_tokens, prompt_mode=kv.prompt_mode)
        for b in range(32, kv.budget_tokens + 1)
    ]
    fitting = [c for c in candidates if reservation_slots(c, **size) <= free]
    if kv.method == "full":
        assert shrunk == kv
    else:
        assert shrunk == (fitting[-1] if fitting else candidates[0])
