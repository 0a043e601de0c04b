"""The environment of telemetry: what a process reads from it, and what every node must have in it."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict

EXPORTER_IMPORT_PATH = "reasonserve.telemetry.export:span_processors"
MAX_SPAN_EVENTS = 4096
"""A round each 16 tokens over a 64k-token answer; OpenTelemetry's default of 128 would drop the oldest rounds."""


class TelemetrySettings(BaseSettings):
    """What a process reads from its environment.

    Attributes:
        trace_file: Spans are appended here as JSON lines.
        otlp_endpoint: Spans go to this OTLP/gRPC collector; ``https://`` turns TLS on.
    """

    model_config = SettingsConfigDict(env_prefix="REASONSERVE_", frozen=True)

    trace_file: Path | None = None
    otlp_endpoint: str | None = None


def node_environment(*, trace_file: Path | None, otlp_endpoint: str | None, sampling_ratio: float) -> dict[str, str]:
    """Returns the variables that every node of the Ray cluster must have before Ray starts.

    Ray Serve 2.60 does not hand its ``tracing_config`` to the gRPC proxy, which then drops the client's trace:
    these variables are the way to one connected trace.

    Args:
        trace_file: Spans are appended here as JSON lines.
        otlp_endpoint: Spans go to this OTLP/gRPC collector.
        sampling_ratio: Share of traces that are kept, in [0, 1].
    """
    environment = {
        "RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH": EXPORTER_IMPORT_PATH,
        "RAY_SERVE_TRACING_SAMPLING_RATIO": str(sampling_ratio),
        "OTEL_SPAN_EVENT_COUNT_LIMIT": str(MAX_SPAN_EVENTS),
        "OTEL_SERVICE_NAME": "reasonserve",
    }
    if trace_file is not None:
        environment["REASONSERVE_TRACE_FILE"] = str(trace_file)
    if otlp_endpoint is not None:
        environment["REASONSERVE_OTLP_ENDPOINT"] = otlp_endpoint
    return environment
