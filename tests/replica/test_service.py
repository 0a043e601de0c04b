"""What a replica does with requests, without Ray."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from reasonserve.errors import (
    BudgetExhaustedError,
    InvalidRequestError,
    ReasonServeError,
    StartupError,
    UnavailableError,
)
from reasonserve.replica.admission import Admission, Lease
from reasonserve.replica.desk import Desk
from reasonserve.replica.fake_engine import SECRET, FakeEngine, create
from reasonserve.replica.figures import Figures
from reasonserve.replica.messages import ChatInput, Failed, GenerateCall, PromptInput, TokensInput
from reasonserve.replica.protocol import Sampling
from reasonserve.replica.service import ReplicaService
from reasonserve.replica.sizing import KvAsk, QueueLimits, TenantTerms
from reasonserve.replica.startup import load_factory
from reasonserve.replica.watch import EngineWatch
from reasonserve.telemetry.prometheus import PrometheusRecorder

BUFFER = 16


class Replica:
    """A service with the parts that tests look into."""

    def __init__(self, slots=400, queue_requests=0, **engine):
        self.engine = FakeEngine(**engine)
        self.admission = Admission(pool_slots=4096, buffer_tokens=BUFFER)
        terms = TenantTerms(
            tenant_id="a",
            slots=slots,
            guaranteed_slots=0,
            limit_slots=slots,
            min_tokens=32,
            default_tokens=64,
            max_tokens=128,
            queue=QueueLimits(requests=queue_requests),
        )
        lease = Lease(epoch=1, ttl_s=300.0, tenants={"a": terms}, num_replicas=1)
        self.admission.apply_lease(lease, granted_at=1e9, now=1e9)
        self.changes = 0
        self.desk = Desk(admission=self.admission, engine=self.engine, clock=lambda: 1e9)
        self.desk.on_change(self.changed)
        self.watch = EngineWatch(self.engine, period_s=0.01)
        self.page = CollectorRegistry()
        figures = Figures(PrometheusRecorder(self.page))
        self.service = ReplicaService(
            engine=self.engine, desk=self.desk, watch=self.watch, model="fake", figures=figures
        )

    def changed(self):
        self.changes += 1

    async def items(self, call):
        return [item async for item in self.service.generate(call)]

    async def error(self, call):
        *_, last = await self.items(call)
        assert isinstance(last, Failed)
        self.assert_idle()
        return last.error

    def assert_idle(self):
        assert self.admission.reserved_by("a") == 0
        assert self.engine.running == {}
        self.admission.check_integrity()


def call(text="hello", *, max_new_tokens=8, input=None, request_id="r", **kv):
    return GenerateCall(
        request_id=request_id,
        tenant_id="a",
        input=input or PromptInput(text=text),
        sampling=Sampling(max_new_tokens=max_new_tokens),
        kv=KvAsk(**kv),
    )


async def test_an_answer_ends_with_its_figures_and_releases():
    replica = Replica()
    items = await replica.items(call(max_new_tokens=200, budget_tokens=64))
    ending = items[-1].ending
    assert [item.ending for item in items[:-1]] == [None] * 199
    assert "".join(item.text for item in items) == "hello" * 40
    assert (ending.input_tokens, ending.output_tokens, ending.finish_reason) == (5, 200, "length")
    assert (ending.method, ending.budget_tokens, ending.profile_id) == ("reasonalloc", 64, "fake-profile")
    assert ending.peak_slots == 5 + 64 + BUFFER
    assert ending.rounds == items[-1].rounds == len(range(80, 200, 16))
    assert ending.kept_cells == ending.rounds * 64 * 4
    assert ending.evicted_cells == ending.rounds * BUFFER * 4
    replica.assert_idle()
    assert replica.changes == 2  # the admission and the release


async def test_an_answer_that_is_awaited_whole_comes_as_its_first_token_and_the_rest():
    replica = Replica()
    whole = replace(call(max_new_tokens=200, budget_tokens=64), is_streamed=False)
    first, rest = await replica.items(whole)
    assert (len(first.token_ids), len(rest.token_ids), rest.ending.output_tokens) == (1, 199, 200)
    assert first.text + rest.text == "hello" * 40
    replica.assert_idle()


async def test_methods_without_a_profile_report_none():
    ending = (await Replica().items(call(method="r-kv")))[-1].ending
    assert (ending.method, ending.profile_id) == ("r-kv", "")


async def test_the_tenants_prefix_cache_is_its_own():
    seen = []
    replica = Replica()
    generate = replica.engine.generate
    replica.engine.generate = lambda request: seen.append(request) or generate(request)
    await replica.items(call())
    assert [request.cache_salt for request in seen] == ["a"]


async def test_chat_is_rendered_and_the_context_ends_the_answer():
    replica = Replica(context_length=20)
    items = await replica.items(call(input=ChatInput(messages=(("user", "hello"),)), max_new_tokens=50))
    assert items[-1].ending.input_tokens == len("user: hello")
    assert items[-1].ending.output_tokens == 20 - 11


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (call(input=TokensInput(ids=(1, 256))), "tokens.ids[1]"),
        (call(input=TokensInput(ids=(-1,))), "tokens.ids[0]"),
        (call("x" * 4096), "input"),
        (call(budget_tokens=129), "kv.budget_tokens"),
        (call("x" * 401, method="full"), "sampling.max_new_tokens"),
    ],
)
async def test_what_the_model_or_the_tenant_refuses(bad, field):
    error = await Replica().error(bad)
    assert isinstance(error, InvalidRequestError)
    assert error.field == field


async def test_a_method_that_needs_a_profile_is_refused_without_one():
    error = await Replica(has_profile=False).error(call())
    assert isinstance(error, InvalidRequestError)
    assert error.field == "kv.method"
    assert "streaming, random-pinned, full. Use one of these, or activate a profile" in error.message


async def test_exhausted_while_another_runs():
    replica = Replica(slots=200)
    async with aclosing(replica.service.generate(call(request_id="1", method="full", max_new_tokens=150))) as running:
        await anext(running)
        error = (await replica.items(call(request_id="2", budget_tokens=64, max_new_tokens=100)))[-1].error
        assert isinstance(error, BudgetExhaustedError)
        assert replica.admission.reserved_by("a") == 155
    replica.assert_idle()


async def test_an_unforeseen_error_becomes_one_without_its_text():
    error = await Replica().error(call("!raise"))
    assert type(error) is ReasonServeError
    assert SECRET not in repr(vars(error))


async def test_an_engine_that_dies_is_unavailable():
    replica = Replica()
    assert isinstance(await replica.error(call("!die")), UnavailableError)
    with pytest.raises(UnavailableError):
        await replica.engine.check_health()


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_an_abandoned_answer_stops_the_engine_and_releases(how):
    replica = Replica()
    started = asyncio.Event()

    async def consume():
        async with aclosing(replica.service.generate(call("!slow", max_new_tokens=300))) as items:
            async for _ in items:
                started.set()
                if how == "closed":
                    return

    task = asyncio.create_task(consume())
    await started.wait()
    if how == "cancelled":
        assert replica.admission.reserved_by("a") > 0
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    replica.assert_idle()


def test_an_engine_factory_is_named_by_its_path():
    assert load_factory("reasonserve.replica.fake_engine:create") is create
    for wrong in ("reasonserve.replica.fake_engine:missing", "reasonserve.nowhere:create", ":", ""):
        with pytest.raises(StartupError, match="engine factory"):
            load_factory(wrong)
