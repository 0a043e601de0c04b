"""Logs: one line a record, as text or as JSON, with the trace's ids and without what an exception quotes.

Records carry figures as ``extra={"fields": {...}}``. An exception is told by its class and its place in the code; its
message stays out, for it may quote a prompt or a key.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

from opentelemetry import trace

from reasonserve.telemetry.settings import TelemetrySettings

LOGGER = "reasonserve"
MAX_FRAMES = 12


def fields(**figures: Any) -> dict[str, dict[str, Any]]:
    """Returns the ``extra`` of a log call; figures that are None or empty are left out."""
    return {"fields": {name: value for name, value in figures.items() if value not in (None, "")}}


def record_data(record: logging.LogRecord, service: str) -> dict[str, Any]:
    """Returns a record as plain data, in the order that people read it."""
    data: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "service": service,
        "logger": record.name,
        "message": record.getMessage(),
    }
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        data["trace_id"] = trace.format_trace_id(context.trace_id)
        data["span_id"] = trace.format_span_id(context.span_id)
    data |= getattr(record, "fields", {})
    if record.exc_info and record.exc_info[0] is not None:
        data["error_type"] = record.exc_info[0].__name__
        frames = traceback.extract_tb(record.exc_info[2])[-MAX_FRAMES:]
        data["stack"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return data


class JsonFormatter(logging.Formatter):
    """A record as one JSON object.

    Args:
        service: Which process speaks: gateway, replica or controller.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Formats a record."""
        return json.dumps(record_data(record, self._service), default=str)


class TextFormatter(JsonFormatter):
    """A record as one line for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats a record."""
        data = record_data(record, self._service)
        data["time"] = data["time"].replace("T", " ")
        head = " ".join(str(data.pop(name)) for name in ("time", "level", "service", "logger", "message"))
        return " ".join([head, *(f"{name}={value}" for name, value in data.items())]).replace("\n", " | ")


def set_up_logging(service: str) -> None:
    """Sends this package's records where the environment says, in place of what was set up before."""
    settings = TelemetrySettings()
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if settings.log_file is not None:
        settings.log_file.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(settings.log_file)  # appends; one write a record, so processes do not mix
    handler.setFormatter((JsonFormatter if settings.log_format == "json" else TextFormatter)(service))
    logger = logging.getLogger(LOGGER)
    for old in list(logger.handlers):
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
