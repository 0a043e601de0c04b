"""The engine's span: what it always tells, and what only when asked."""

import json
import time

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from reasonserve.kv import KvCounters, KvRequest
from reasonserve.replica import spans
from reasonserve.replica.messages import ChatInput, GenerateCall, PromptInput, TokensInput
from reasonserve.replica.protocol import EngineChunk, EngineRequest, Sampling
from reasonserve.replica.request import Grant
from reasonserve.replica.sizing import KvAsk
from reasonserve.telemetry import names
from reasonserve.telemetry.tracing import Parent

SECRET = "a prompt"
KV = KvRequest(method="reasonalloc", budget_tokens=64)


@pytest.fixture
def exported(monkeypatch):
    kept, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(spans.trace, "get_tracer_provider", lambda: provider)
    return kept


def run(given, *, chunks, **how):
    sampling = Sampling(seed=3, top_k=5)
    call = GenerateCall(request_id="r", tenant_id="t", input=given, sampling=sampling, kv=KvAsk())
    request = EngineRequest(request_id="r", input_ids=(1,), sampling=sampling, kv=KV)
    with spans.inference(call, request, model="m", **how) as span:
        for chunk in chunks:
            span.record(chunk, profile_id="p")


def chunk(text, tokens, *, end="", scheduled=0.0, squeezes=0):
    kv = KvCounters(held_slots=9, scheduled_unix_s=scheduled, squeezes=squeezes)
    return EngineChunk(text=text, token_ids=(1,), finish_reason=end, output_tokens=tokens, kv=kv)


def by_name(exported):
    return {span.name: span for span in exported.get_finished_spans()}


def call_from(parent, **more):
    how = {"input": PromptInput(text=SECRET), "sampling": Sampling(), "kv": KvAsk()}
    return GenerateCall(request_id="r", tenant_id="t", parent=parent, **how, **more)


def test_a_call_brings_its_trace_along(exported):
    """Whatever trace is current in the replica's process."""
    caller = Parent(trace_id=5, span_id=7, flags=1)
    request = EngineRequest(request_id="r", input_ids=(1,), sampling=Sampling(), kv=KV)
    with spans.tracer().start_as_current_span("another request"):
        with spans.admission(call_from(caller), replica_id="a"), spans.within(call_from(caller)):
            logged = spans.trace.get_current_span().get_span_context()
        with spans.inference(call_from(caller), request, model="m", replica_id="a"):
            pass
        with spans.admission(call_from(None)):
            pass
    *ours, alone, _ = [span for span in exported.get_finished_spans() if not span.name.startswith("reasonserve.engine")]
    assert [(span.context.trace_id, span.parent.span_id) for span in ours] == [(5, 7)] * 2
    assert [span.attributes[names.REPLICA_ID] for span in ours] == ["a"] * 2
    assert alone.parent is None
    assert (logged.trace_id, logged.span_id) == (5, 7)


@pytest.mark.parametrize(("sent_ns", "is_known"), [(1, True), (0, False), (1 << 62, False)])
def test_the_way_to_the_replica_ends_when_the_call_comes(exported, sent_ns, is_known):
    """And lasts nothing where the gateway's clock is ahead."""
    with spans.routed(call_from(Parent(5, 7, 1), sent_ns=sent_ns, attempt=1), replica_id="a"):
        during = time.time_ns()
        assert exported.get_finished_spans() == ()
    (route,) = exported.get_finished_spans()
    assert (route.name, route.context.trace_id, route.parent.span_id) == (names.SPAN_ROUTE, 5, 7)
    assert route.attributes == {names.REPLICA_ID: "a", names.ATTEMPT: 1}
    assert route.end_time <= during
    assert route.start_time == (1 if is_known else route.end_time)


def test_phases_follow_each_other_whatever_the_schedulers_clock_says(exported):
    for scheduled in (0.0, 1e12):
        exported.clear()
        run(PromptInput(text=SECRET), chunks=[chunk("a", 1, scheduled=scheduled), chunk("b", 2, end="stop")])
        seen = by_name(exported)
        phases = [seen[n] for n in (names.SPAN_ENGINE_QUEUE, names.SPAN_ENGINE_PREFILL, names.SPAN_ENGINE_DECODE)]
        whole = seen["text_completion m"]
        assert all(phase.parent.span_id == whole.context.span_id for phase in phases)
        times = [t for phase in phases for t in (phase.start_time, phase.end_time)]
        assert times == sorted(times)
        assert whole.start_time <= times[0] <= times[-1] <= whole.end_time
        assert whole.attributes[names.REQUEST_SEED] == 3


def test_a_request_that_ends_in_the_queue_has_no_other_phase(exported):
    run(PromptInput(text=SECRET), chunks=[])
    assert set(by_name(exported)) == {"text_completion m", names.SPAN_ENGINE_QUEUE}


def test_squeezes_are_events(exported):
    run(PromptInput(text=SECRET), chunks=[chunk("a", 1), chunk("b", 2, squeezes=1), chunk("c", 3, squeezes=1)])
    events = by_name(exported)["text_completion m"].events
    assert [event.name for event in events] == [names.EVENT_SQUEEZED]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (PromptInput(text=SECRET), [("user", SECRET)]),
        (ChatInput(messages=(("system", "be brief"), ("user", SECRET))), [("system", "be brief"), ("user", SECRET)]),
        (TokensInput(ids=(1, 2)), []),
    ],
)
def test_text_is_told_only_when_asked(exported, given, told):
    chunks = [chunk("an ", 1), chunk("answer", 2, end="stop")]
    run(given, chunks=chunks)
    assert not any(word in str([s.to_json() for s in exported.get_finished_spans()]) for word in (SECRET, "answer"))
    exported.clear()
    run(given, chunks=chunks, records_content=True)
    (engine,) = (span for span in exported.get_finished_spans() if span.name.endswith(" m"))
    messages = json.loads(engine.attributes[names.INPUT_MESSAGES])
    assert [(message["role"], message["parts"][0]["content"]) for message in messages] == told
    (answer,) = json.loads(engine.attributes[names.OUTPUT_MESSAGES])
    assert (answer["role"], answer["finish_reason"]) == ("assistant", "stop")
    assert answer["parts"] == [{"type": "text", "content": "an answer"}]


def test_admission_tells_how_the_request_came_to_its_slots(exported):
    call = GenerateCall(request_id="r", tenant_id="t", input=PromptInput(text=SECRET), sampling=Sampling(), kv=KvAsk())
    with spans.admission(call) as span:
        spans.record_grant(span, Grant(kv=KV, wished_tokens=128, slots=10, queued_s=0.5))
    (admission,) = exported.get_finished_spans()
    assert [event.name for event in admission.events] == [names.EVENT_QUEUED, names.EVENT_SHRUNK]
    assert admission.events[1].attributes == {names.KV_WISHED_TOKENS: 128, names.KV_BUDGET_TOKENS: 64}
