"""Log lines: one a record, with the trace's ids, and nothing that a request said."""

import json
import logging

import pytest
from opentelemetry.sdk.trace import TracerProvider

from reasonserve.telemetry.logs import JsonFormatter, TextFormatter, fields, set_up_logging

PROMPT = "a prompt\nthat must not be told"


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Lends a logger of the package and what it wrote; leaves logging as it was."""
    monkeypatch.setenv("REASONSERVE_LOG_FILE", str(tmp_path / "made" / "log"))
    monkeypatch.setenv("REASONSERVE_LOG_FORMAT", "json")
    package = logging.getLogger("reasonserve")
    before = package.handlers[:], package.level, package.propagate
    set_up_logging("replica")
    set_up_logging("gateway")  # replaces what was set up before: no line is written twice
    yield logging.getLogger("reasonserve.test"), tmp_path / "made" / "log"
    for handler in package.handlers:
        handler.close()
    package.handlers[:], package.level, package.propagate = before


def test_a_line_is_json_with_fields_and_trace(log):
    logger, path = log
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    with tracer.start_as_current_span("s") as span:
        logger.info("request ended", extra=fields(tenant="a", tokens=0, absent=None, empty=""))
    logger.warning("no trace")
    first, second = map(json.loads, path.read_text().splitlines())
    assert first["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert {key: first[key] for key in ("level", "service", "message", "tenant", "tokens")} == {
        "level": "info",
        "service": "gateway",
        "message": "request ended",
        "tenant": "a",
        "tokens": 0,
    }
    assert not {"absent", "empty"} & set(first)
    assert "trace_id" not in second


def test_an_exception_is_told_without_what_it_quotes(log):
    logger, path = log
    try:
        raise ValueError(PROMPT)
    except ValueError:
        logger.exception("failed")
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["error_type"] == "ValueError"
    assert "test_logs.py" in json.loads(line)["stack"][-1]
    assert "must not be told" not in line


@pytest.mark.parametrize("formatter", [JsonFormatter, TextFormatter])
def test_a_record_is_one_line_whatever_it_says(formatter):
    record = logging.LogRecord("n", logging.INFO, "p", 1, "two\nlines", (), None)
    record.fields = {"figure": "three\nmore"}
    assert "\n" not in formatter("s").format(record)
