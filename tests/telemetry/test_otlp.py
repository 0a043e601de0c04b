"""Spans reach a collector over OTLP/gRPC; the collector here is a server that keeps what it is sent."""

from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider

from reasonserve.config import ServiceConfig
from reasonserve.errors import StartupError
from reasonserve.telemetry.export import span_processors


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self):
        self.spans = []

    def Export(self, request, context):
        self.spans += [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector():
    collector, server = Collector(), grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield collector
    server.stop(None).wait()


def test_spans_with_their_events_reach_a_collector(collector, monkeypatch):
    monkeypatch.setenv("REASONSERVE_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.delenv("REASONSERVE_TRACE_FILE", raising=False)
    provider = TracerProvider()
    for processor in span_processors():
        provider.add_span_processor(processor)
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("parent") as parent, tracer.start_as_current_span("child") as child:
        child.add_event("reasonserve.kv.round", {"reasonserve.kv.kept_cells": 7})
    provider.shutdown()
    by_name = {span.name: span for span in collector.spans}
    assert by_name["child"].parent_span_id == by_name["parent"].span_id
    assert by_name["child"].trace_id.hex() == f"{parent.get_span_context().trace_id:032x}"
    assert [event.name for event in by_name["child"].events] == ["reasonserve.kv.round"]


@pytest.mark.parametrize("endpoint", ["collector:4317", "ftp://collector:4317", "http://collector:4317/v1/traces"])
def test_an_endpoint_that_would_be_misread_is_refused(endpoint):
    with pytest.raises(StartupError, match=r"telemetry\.otlp_endpoint"):
        ServiceConfig.from_mapping({"telemetry": {"otlp_endpoint": endpoint}})
