"""When spans are written: after what runs now, in one call, and none is left behind."""

import asyncio

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from reasonserve.telemetry.file_exporter import FileSpanExporter
from reasonserve.telemetry.soon import SoonProcessor
from reasonserve.telemetry.tree import read_trace


class Calls(SpanExporter):
    """Keeps the names of each call."""

    def __init__(self):
        self.made, self.is_shut = [], False

    def export(self, spans):
        assert not self.is_shut
        self.made.append([span.name for span in spans])
        return SpanExportResult.SUCCESS

    def shutdown(self):
        self.is_shut = True


def traced(**how):
    exporter, provider = Calls(), TracerProvider(shutdown_on_exit=False, **how)
    provider.add_span_processor(SoonProcessor(exporter))
    return exporter, provider


def end_two(provider):
    tracer = provider.get_tracer("t")
    for name in ("a", "b"):
        tracer.start_span(name).end()


def test_without_a_loop_each_span_is_written_at_once():
    exporter, provider = traced()
    end_two(provider)
    assert exporter.made == [["a"], ["b"]]


async def test_on_a_loop_what_runs_now_goes_first_and_spans_share_a_call():
    exporter, provider = traced()
    end_two(provider)
    assert exporter.made == []
    await asyncio.sleep(0)
    assert exporter.made == [["a", "b"]]


async def test_nothing_is_left_when_the_provider_ends():
    exporter, provider = traced()
    end_two(provider)
    assert provider.force_flush()
    end_two(provider)
    provider.shutdown()
    assert exporter.made == [["a", "b"], ["a", "b"]]
    assert exporter.is_shut
    await asyncio.sleep(0)


async def test_what_is_not_sampled_is_not_written():
    exporter, provider = traced(sampler=ALWAYS_OFF)
    end_two(provider)
    provider.shutdown()
    assert exporter.made == []


async def test_spans_of_one_call_are_lines_of_their_own(tmp_path):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SoonProcessor(FileSpanExporter(tmp_path / "spans.jsonl")))
    with provider.get_tracer("t").start_as_current_span("root") as root:
        end_two(provider)
    provider.shutdown()
    spans = read_trace(tmp_path / "spans.jsonl", f"{root.get_span_context().trace_id:032x}")
    assert sorted(span["name"] for span in spans) == ["a", "b", "root"]
