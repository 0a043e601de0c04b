"""Whose word counts on sampling, and that spans leave a process as whole branches."""

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from reasonserve.telemetry import whole_branches
from reasonserve.telemetry.sampling import EntranceSampler, OwnRoute
from reasonserve.telemetry.whole_branches import WholeBranches


@pytest.fixture
def exported():
    return InMemorySpanExporter()


def tracer_of(exported, ratio=1.0):
    provider = TracerProvider(sampler=ParentBased(EntranceSampler(ratio)), shutdown_on_exit=False)
    provider.add_span_processor(WholeBranches(SimpleSpanProcessor(exported)))
    return provider.get_tracer("t")


def remote(sampled):
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return trace.set_span_in_context(NonRecordingSpan(SpanContext(7, 8, is_remote=True, trace_flags=flags)))


def names(exported):
    return [span.name for span in exported.get_finished_spans()]


@pytest.mark.parametrize(
    ("name", "parent", "ratio", "kept"),
    [
        ("proxy_grpc_request Gateway", None, 1.0, True),
        ("proxy_grpc_request Gateway", None, 0.0, False),
        ("route_to_replica Gateway", None, 1.0, False),  # Ray Serve below a span that was not sampled
        ("reasonserve.admission", None, 1.0, False),
        ("proxy_grpc_request Gateway", True, 0.0, True),
        ("proxy_grpc_request Gateway", False, 1.0, False),
        ("replica_handle_request Replica", True, 0.0, True),
    ],
)
def test_the_caller_decides_and_only_entrances_begin_traces(exported, name, parent, ratio, kept):
    context = None if parent is None else remote(parent)
    tracer_of(exported, ratio).start_span(name, context=context).end()
    assert names(exported) == [name] * kept


@pytest.mark.parametrize(
    ("parent", "name", "kept"),
    [
        ("reasonserve", "route_to_replica", False),
        ("reasonserve", "chat m", True),
        ("ray.serve", "route_to_replica", True),
    ],
)
def test_the_way_to_a_replica_is_told_once(exported, parent, name, kept):
    provider = TracerProvider(sampler=ParentBased(EntranceSampler(1.0), local_parent_sampled=OwnRoute()))
    provider.add_span_processor(SimpleSpanProcessor(exported))
    above = provider.get_tracer(parent).start_span("above", context=remote(True))
    provider.get_tracer("ray.serve").start_span(name, context=trace.set_span_in_context(above)).end()
    assert names(exported) == [name] * kept


def test_a_branch_leaves_when_its_outermost_span_ends(exported):
    tracer = tracer_of(exported)
    root = tracer.start_span("root", context=remote(True))
    inside = trace.set_span_in_context(root)
    child = tracer.start_span("child", context=inside)
    late = tracer.start_span("late", context=inside)
    tracer.start_span("grandchild", context=trace.set_span_in_context(child)).end()
    child.end()
    assert names(exported) == []
    root.end()
    assert names(exported) == ["grandchild", "child", "root"]
    late.end()  # its parent is out, so it may follow
    assert names(exported)[-1] == "late"


def test_two_branches_of_one_trace_do_not_wait_for_each_other(exported):
    tracer = tracer_of(exported)
    first = tracer.start_span("first", context=remote(True))
    second = tracer.start_span("second", context=remote(True))
    second.end()
    assert names(exported) == ["second"]
    first.end()
    assert names(exported) == ["second", "first"]


def test_branches_that_never_end_are_let_go(exported, monkeypatch):
    monkeypatch.setattr(whole_branches, "MAX_BRANCHES", 2)
    tracer = tracer_of(exported)
    lost = tracer.start_span("lost", context=remote(True))
    tracer.start_span("held by lost", context=trace.set_span_in_context(lost)).end()
    for name in "ab":
        tracer.start_span(name, context=remote(True))
    lost.end()
    assert names(exported) == ["lost"]
