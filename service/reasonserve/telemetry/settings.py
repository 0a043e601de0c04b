"""The environment of telemetry: what a process reads from it, and what every node must have in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from reasonserve.config import TelemetryConfig

EXPORTER_IMPORT_PATH = "reasonserve.telemetry.export:span_processors"
MAX_SPAN_EVENTS = 4096
"""A round each 16 tokens over a 64k-token answer; OpenTelemetry's default of 128 would drop the oldest rounds."""


class TelemetrySettings(BaseSettings):
    """What a process reads from its environment.

    Attributes:
        trace_file: Spans are appended here as JSON lines.
        otlp_endpoint: Spans go to this OTLP/gRPC collector; ``https://`` turns TLS on.
        sampling_ratio: Share of the traces begun here that are kept.
        log_format: One JSON object a line, or text.
        log_file: Log lines are appended here; None is the standard error stream.
        max_tenant_labels: Tenants that get a label of their own in metrics.
    """

    model_config = SettingsConfigDict(env_prefix="REASONSERVE_", frozen=True)

    trace_file: Path | None = None
    otlp_endpoint: str | None = None
    sampling_ratio: float = 1.0
    log_format: Literal["text", "json"] = "text"
    log_file: Path | None = None
    max_tenant_labels: int = 64


def node_environment(telemetry: TelemetryConfig) -> dict[str, str]:
    """Returns the variables that every node of the Ray cluster must have before Ray starts.

    Ray Serve 2.60 does not hand its ``tracing_config`` to the gRPC proxy, which then drops the client's trace:
    these variables are the way to one connected trace.
    """
    settings = {name: getattr(telemetry, name) for name in TelemetrySettings.model_fields}
    return {
        "RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH": EXPORTER_IMPORT_PATH,
        "RAY_SERVE_TRACING_SAMPLING_RATIO": str(telemetry.sampling_ratio),
        "OTEL_SPAN_EVENT_COUNT_LIMIT": str(MAX_SPAN_EVENTS),
        "OTEL_SERVICE_NAME": "reasonserve",
        **{f"REASONSERVE_{name.upper()}": str(value) for name, value in settings.items() if value is not None},
    }
