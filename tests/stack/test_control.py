"""Refusals and recovery, without Ray."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from reasonserve.config import ServiceConfig
from reasonserve.errors import StartupError
from reasonserve.stack import control
from reasonserve.stack.paths import StatePaths
from reasonserve.stack.serving import deployment_reason
from reasonserve.stack.state import ProcessRef, StackState


def state_of(host: ProcessRef, **fields: Any) -> StackState:
    return StackState(
        phase="ready",
        host=host,
        gateway_endpoint="127.0.0.1:9000",
        controller_endpoint="127.0.0.1:9100",
        model="m",
        trace_file=Path("spans.jsonl"),
        **fields,
    )


@pytest.fixture
def paths(tmp_path: Path) -> StatePaths:
    made = StatePaths(tmp_path / "state")
    made.prepare()
    return made


@pytest.mark.parametrize("key", ["gateway.port", "gateway.http_port", "controller.port"])
def test_a_taken_port_is_named_with_its_key(make_config: Callable[..., Path], key: str) -> None:
    config = ServiceConfig.from_file(make_config())
    section, field = key.split(".")
    with socket.create_server(("127.0.0.1", getattr(getattr(config, section), field))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=f"Port {port} is taken.*`{key}`"):
            control.check_ports(config)
    control.check_ports(config)


def test_one_port_for_two_purposes_is_refused() -> None:
    config = ServiceConfig.from_mapping({"gateway": {"port": 9500}, "controller": {"port": 9500}})
    with pytest.raises(StartupError, match=r"controller.port and gateway.port are both 9500"):
        control.check_ports(config)


def test_the_state_of_a_dead_supervisor_is_stale(paths: StatePaths) -> None:
    orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    dead = subprocess.Popen([sys.executable, "-c", ""])
    host = ProcessRef(pid=dead.pid, create_time=0.0)
    dead.wait()
    state_of(host, controller=ProcessRef.of(orphan.pid)).write(paths.state_file)
    assert control.running(paths) is None
    assert control.stop(paths) is False
    assert not psutil.pid_exists(orphan.pid)
    orphan.wait()
    assert not paths.state_file.exists()


def test_a_reused_pid_is_not_our_supervisor(paths: StatePaths) -> None:
    ours = ProcessRef.of(os.getpid())
    state_of(ours).write(paths.state_file)
    assert control.running(paths) is not None
    state_of(ours.model_copy(update={"create_time": ours.create_time - 100})).write(paths.state_file)
    assert control.running(paths) is None


def test_a_start_that_fails_says_why_and_leaves_nothing(make_config: Callable[..., Path], paths: StatePaths) -> None:
    config = ServiceConfig.from_file(make_config()).model_copy(update={"model": "no-such-model"})
    seen: list[StackState] = []
    with pytest.raises(StartupError, match=r"no-such-model.*The log is"):
        control.start(config, paths, on_change=seen.append)
    assert seen[-1].phase == "failed"
    assert seen[-1].host.find() is None
    assert seen[-1].controller is None or seen[-1].controller.find() is None


def test_state_of_another_release_is_not_trusted(paths: StatePaths) -> None:
    paths.state_file.write_text(json.dumps({"phase": "ready", "colour": "blue"}))
    assert control.running(paths) is None


def test_the_reason_is_found_in_a_deployment_message() -> None:
    message = (
        "The deployment failed to start 3 times in a row.\nTraceback (most recent call last):\n"
        '  File "a.py", line 1, in f\nreasonserve.errors.StartupError: The pool is too small.\n'
    )
    assert deployment_reason(message) == "reasonserve.errors.StartupError: The pool is too small."
    assert deployment_reason("") == "no reason was given"
