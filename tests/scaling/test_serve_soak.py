"""The data plane's soak of three minutes: a stack with two real engines under load, clients and parts of it killed."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

MODEL = Path(__file__).parents[1] / "data" / "pointer-chaser"
END_S = 120.0


def stack_processes(folder: Path) -> list[psutil.Process]:
    """Returns the processes that were started with a configuration or a database in a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(str(folder) in argument for argument in process.cmdline()):
                found.append(process)
    return found


@pytest.fixture
def soak(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, running; nothing of its stack outlives the test."""
    temporary = tmp_path / "t"
    temporary.mkdir()
    command = [sys.executable, "-m", "reasonserve.bench", "serve-soak", "--quick"]
    command += ["--model", str(MODEL), "--json", str(tmp_path / "soak.json")]
    ray = {"RAY_TMPDIR": tempfile.gettempdir()}  # the paths of Ray's sockets must be short
    environment = os.environ | {"TMPDIR": str(temporary)} | ray
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            end(process, temporary)


def end(process: subprocess.Popen[str], folder: Path) -> None:
    """Ends the command, and by force what it leaves of its stack."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)  # it ends its stack
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=END_S)
    for left in stack_processes(folder):
        for child in [*left.children(recursive=True), left]:
            with suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()


def test_nothing_is_lost_leaked_or_left(soak: subprocess.Popen[str], tmp_path: Path) -> None:
    told, _ = soak.communicate()
    assert soak.returncode == 0, told
    found = json.loads((tmp_path / "soak.json").read_text())
    ends = {end: sum(by.get(end, 0) for by in found["account"]["ends"].values()) for end in ("finished", "cancelled")}
    counted = sum(sum(by.values()) for by in found["account"]["ends"].values())
    assert found["faults"] == []
    assert counted == found["requests"]
    assert set(found["account"]["ends"]) == {"gold", "silver", "bronze", "free"}
    assert ends["finished"] > 0.4 * counted
    assert ends["cancelled"] > 0
    assert 0 < found["replica_killed_s"] < found["controller_killed_s"] < found["seconds"]
    assert {slope["role"] for slope in found["slopes"]} == {"controller", "proxy", "gateway", "replica", "engine"}
    lives = [slope["life"] for slope in found["slopes"] if slope["role"] == "replica"]
    assert {"killed", "whole"} <= set(lives)
    assert stack_processes(tmp_path / "t") == []
