"""The one command that a newcomer runs."""

import subprocess
import sys

import pytest

from reasonserve.telemetry import names

pytestmark = pytest.mark.stack


def test_the_demo_runs_from_end_to_end(three_ports: int) -> None:
    command = [sys.executable, "-m", "reasonserve", "demo", "--tokens", "320", "--port", str(three_ports)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    assert "peak private KV slots" in done.stdout
    assert names.EVENT_ROUND in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
