"""Spans to a file by several processes, the tree of a trace, the environment of a node."""

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from rich.console import Console

from reasonserve.cli.tracing import is_complete
from reasonserve.config import TelemetryConfig
from reasonserve.errors import NotFoundError
from reasonserve.telemetry import names
from reasonserve.telemetry.settings import EXPORTER_IMPORT_PATH, TelemetrySettings, node_environment
from reasonserve.telemetry.tracing import (
    Parent,
    TraceparentInterceptor,
    context_of,
    root_span,
    set_up_tracing,
    trace_id_of,
)
from reasonserve.telemetry.tree import read_trace, trace_tree

WRITER = """
import sys
from reasonserve.telemetry.tracing import root_span, set_up_tracing
provider = set_up_tracing("writer")
for index in range(200):
    with root_span(provider, "s") as span:
        span.set_attribute("text", sys.argv[1] * 2000)
provider.shutdown()
"""


def span(span_id, parent_id, name, start, end, **more):
    base = {"trace_id": "t", "status": "UNSET", "attributes": {}, "events": []}
    return base | {"span_id": span_id, "parent_id": parent_id, "name": name, "start_ns": start, "end_ns": end} | more


def show(tree):
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(tree)
    return capture.get()


def test_lines_of_several_processes_do_not_mix(tmp_path):
    path = tmp_path / "made" / "spans.jsonl"
    environment = {"REASONSERVE_TRACE_FILE": str(path)}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, letter], env=environment) for letter in "ab"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    texts = [json.loads(line)["attributes"]["text"] for line in path.read_text().splitlines()]
    assert sorted(texts) == ["a" * 2000] * 200 + ["b" * 2000] * 200
    assert path.stat().st_mode & 0o077 == 0


def test_the_tree_follows_parents_and_shows_figures_rounds_and_orphans():
    round_event = {
        "name": names.EVENT_ROUND,
        "time_ns": 3_500_000,
        "attributes": {names.ROUND_KEPT_CELLS: 64, names.ROUND_LAYER_BUDGETS: [12.0, 20.5]},
    }
    spans = [
        span("c", "b", "chat m", 2_000_000, 5_000_000, attributes={names.KV_ROUNDS: 1}, events=[round_event]),
        span("a", None, "client", 0, 9_000_000),
        span("b", "a", "replica_handle_request R", 1_000_000, 8_000_000, status="ERROR"),
        span("o", "lost", "proxy /pkg.v1.S/Method", 6_000_000, 7_000_000),
    ]
    lines = [line.rstrip() for line in show(trace_tree(spans)).splitlines()]
    assert [re.split(r" {2,}", line)[:3] for line in lines[2:]] == [
        ["client", "0.0 ms", "9.0 ms"],
        ["└ replica_handle_request R", "1.0 ms", "7.0 ms"],
        ["", "└ chat m", "2.0 ms"],
        ["", "· reasonserve.kv.round", "3.5 ms"],
        ["proxy Method", "6.0 ms", "1.0 ms"],
    ]
    assert "rounds=1" in lines[4]
    assert "kept_cells=64 layer_budgets=[12 20.5]" in lines[5]
    bars = [len(re.findall("━", line)) for line in lines[2:]]
    assert bars == [16, 13, 6, 0, 2]  # of 9 ms: 9, 7, 3, an instant, 1; begun marks count
    short = [line.strip() for line in show(trace_tree(spans, hops=False)).splitlines()]
    assert short[3].startswith("└ chat m")  # below the client now
    assert "replica_handle_request" not in "".join(short)


def test_a_retry_is_shown_without_the_hops_too():
    retry = {"name": names.EVENT_RETRY, "time_ns": 2_000_000, "attributes": {}}
    spans = [
        span("a", None, "client", 0, 9_000_000),
        span("b", "a", "replica_handle_request Gateway Generate", 1_000_000, 8_000_000, events=[retry]),
        span("c", "b", "route_to_replica generate", 3_000_000, 7_000_000),
        span("d", "c", names.SPAN_ADMISSION, 4_000_000, 5_000_000, attributes={names.ATTEMPT: 1}),
    ]
    lines = [line.strip() for line in show(trace_tree(spans, hops=False)).splitlines()[2:]]
    assert [re.split(r" {2,}", line)[0] for line in lines] == [
        "client",
        "└ replica_handle_request Gateway Generate",
        "│ · reasonserve.retry",
        "└ reasonserve.admission",
    ]


def test_long_lists_are_told_by_their_ends():
    event = {"name": "e", "time_ns": 0, "attributes": {names.ROUND_LAYER_BUDGETS: [float(n) for n in range(30)]}}
    assert "layer_budgets=0..29" in show(trace_tree([span("a", None, "s", 0, 1, events=[event])]))


def test_spans_are_read_back_as_written(tmp_path, monkeypatch):
    path = tmp_path / "spans.jsonl"
    monkeypatch.setenv("REASONSERVE_TRACE_FILE", str(path))
    provider = set_up_tracing("t")
    with pytest.raises(KeyError), root_span(provider) as root:
        raise KeyError("secret")
    provider.shutdown()
    (record,) = read_trace(path, trace_id_of(root))
    assert (record["name"], record["parent_id"], record["status"]) == (names.SPAN_CLIENT, None, "ERROR")
    assert record["attributes"] == {names.ERROR_TYPE: "KeyError"}
    assert "secret" not in path.read_text()
    for missing in (path, tmp_path / "nothing"):
        with pytest.raises(NotFoundError, match="no trace"):
            read_trace(missing, "0" * 32)


def test_a_trace_is_complete_once_each_replica_has_told_its_last():
    client, entrance = span("a", None, names.SPAN_CLIENT, 0, 9), span("b", "a", "Generate", 1, 8)
    admission, way = span("c", "b", names.SPAN_ADMISSION, 2, 3), span("d", "b", names.SPAN_ROUTE, 1, 2)
    engine, phase = span("e", "b", "chat", 3, 7), span("f", "e", names.SPAN_ENGINE_DECODE, 4, 7)
    assert is_complete([client, entrance, admission, engine, phase, way])
    assert not is_complete([client, entrance, admission, phase, way])
    assert not is_complete([client, entrance, admission])
    assert not is_complete([client, entrance])
    again = [span("g", "b", names.SPAN_ADMISSION, 7, 8), span("h", "b", names.SPAN_ROUTE, 6, 7)]
    assert is_complete([client, entrance, admission, way, *again])
    assert not is_complete([client, entrance, admission, way, again[0]])


def test_a_trace_crosses_as_plain_data():
    assert Parent.current() is None
    assert context_of({}) == context_of({"traceparent": "none of ours"}) == {}
    headers = {"traceparent": f"00-{5:032x}-{7:016x}-01", "tracestate": "vendor=9"}
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    with tracer.start_as_current_span("s", context=context_of(headers)) as span:
        sent = Parent.current()
    found, ours = trace.get_current_span(sent.context()).get_span_context(), span.get_span_context()
    assert (found.trace_id, found.span_id, found.trace_flags) == (5, ours.span_id, ours.trace_flags)
    assert dict(found.trace_state) == {"vendor": "9"}
    assert found.is_remote
    assert sent == pickle.loads(pickle.dumps(sent))


def test_the_interceptor_sends_the_current_span_along():
    sent = []

    def continuation(details, request):
        sent.append(dict(details.metadata))
        return request

    details = grpc.ClientCallDetails()
    details.method, details.timeout, details.metadata = "/m", None, [("authorization", "k")]
    details.credentials = details.wait_for_ready = details.compression = None
    provider = set_up_tracing("t")
    with root_span(provider) as root:
        TraceparentInterceptor().intercept_unary_stream(continuation, details, "request")
    TraceparentInterceptor().intercept_unary_unary(continuation, details, "request")
    provider.shutdown()
    assert sent[0]["traceparent"].split("-")[1] == trace_id_of(root)
    assert sent[0]["authorization"] == "k"
    assert sent[1] == {"authorization": "k"}


def test_a_nodes_environment_is_what_the_settings_read(monkeypatch):
    environment = node_environment(
        TelemetryConfig(trace_file=Path("spans"), otlp_endpoint="http://h:4317", sampling_ratio=0.5, log_format="json")
    )
    assert environment["RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH"] == EXPORTER_IMPORT_PATH
    assert environment["RAY_SERVE_TRACING_SAMPLING_RATIO"] == "0.5"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert TelemetrySettings() == TelemetrySettings(
        trace_file=Path("spans"), otlp_endpoint="http://h:4317", sampling_ratio=0.5, log_format="json"
    )
