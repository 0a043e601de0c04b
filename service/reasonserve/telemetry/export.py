"""Where spans go; Ray Serve calls ``span_processors`` in each of its processes before they listen or serve."""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from reasonserve.telemetry.file_exporter import FileSpanExporter
from reasonserve.telemetry.settings import TelemetrySettings
from reasonserve.telemetry.soon import SoonProcessor
from reasonserve.telemetry.whole_branches import WholeBranches


def span_processors() -> list[SpanProcessor]:
    """Returns one processor for each destination that the environment names; none is allowed."""
    settings = TelemetrySettings()
    processors: list[SpanProcessor] = []
    if settings.trace_file is not None:
        processors.append(WholeBranches(SoonProcessor(FileSpanExporter(settings.trace_file))))
    if settings.otlp_endpoint is not None:
        processors.append(WholeBranches(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.otlp_endpoint))))
    return processors
