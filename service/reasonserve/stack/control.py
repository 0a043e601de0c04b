"""Starting, stopping and watching the local stack from outside."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil

from reasonserve.config import ServiceConfig
from reasonserve.errors import StartupError
from reasonserve.stack.paths import StatePaths
from reasonserve.stack.process import terminate, tree
from reasonserve.stack.state import StackState

POLL_S = 0.1
STOP_GRACE_S = 75.0
"""Running streams are drained for at most a minute."""
KILL_GRACE_S = 5.0
START_TIMEOUT_S = 1800.0
"""Room for a first download of the model."""

Watcher = Callable[[StackState], None]


def running(paths: StatePaths) -> StackState | None:
    """Returns the state of the stack whose supervisor is alive, or None."""
    state = StackState.read(paths.state_file)
    return state if state is not None and state.host.find() is not None else None


def start(
    config: ServiceConfig,
    paths: StatePaths,
    *,
    on_change: Watcher,
    engine_factory: str | None = None,
    owned: bool = False,
) -> StackState:
    """Starts a stack in the background and returns when it is ready.

    Args:
        config: The configuration.
        paths: Where the state lives.
        on_change: Called with every new state.
        engine_factory: ``module:function`` in place of the real engine, for tests of the service.
        owned: The stack ends when this process does.

    Raises:
        StartupError: One runs already, a port is taken, or the start failed; nothing is left running then.
    """
    paths.prepare()
    if state := running(paths):
        raise StartupError(
            f"A stack is already running from {paths.root} (phase {state.phase}, gateway {state.gateway_endpoint}). "
            "Use it, or end it with `reasonserve down`."
        )
    clear_stale(paths)
    check_ports(config)
    paths.config_file.write_text(config.model_dump_json(indent=2) + "\n")
    process = _spawn(paths, engine_factory, owned)
    try:
        return _follow(process, paths, on_change)
    except BaseException:
        _end(process.pid)
        process.wait()
        raise


def stop(paths: StatePaths) -> bool:
    """Ends the stack and everything below it; returns whether there was one."""
    state = running(paths)
    if state is None:
        clear_stale(paths)
        return False
    _end(state.host.pid)
    clear_stale(paths)
    return True


def clear_stale(paths: StatePaths) -> None:
    """Ends what a killed supervisor left behind and forgets its state."""
    state = StackState.read(paths.state_file)
    for left in (state.controller, state.front) if state is not None else ():
        if left is not None and (process := left.find()):
            terminate([process], grace_s=KILL_GRACE_S)
    paths.state_file.unlink(missing_ok=True)


def check_ports(config: ServiceConfig) -> None:
    """Checks that every port of the configuration is free and that no two are the same.

    Raises:
        StartupError: Names the port and the key that sets it.
    """
    ports = {
        "gateway.port": config.gateway.port,
        "gateway.http_port": config.gateway.http_port,
        "controller.port": config.controller.port,
        "controller.metrics_port": config.controller.metrics_port,
        "telemetry.metrics_port": config.telemetry.metrics_port,
        "front.port": config.front.port if config.front.tls_cert else None,
        "front.health_port": config.front.health_port if config.front.tls_cert else None,
    }
    seen: dict[int, str] = {}
    for key, port in ports.items():
        if port is None:
            continue
        if port in seen:
            raise StartupError(f"{key} and {seen[port]} are both {port}; give each its own port.")
        seen[port] = key
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError as error:
                raise StartupError(
                    f"Port {port} is taken by another process; free it or set `{key}` to another port."
                ) from error


def _spawn(paths: StatePaths, engine_factory: str | None, owned: bool) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "reasonserve.stack.host"]
    argv += ["--config", str(paths.config_file), "--state-dir", str(paths.root)]
    argv += ["--engine-factory", engine_factory] if engine_factory else []
    argv += ["--owner-pid", str(os.getpid())] if owned else []
    with paths.host_log.open("wb") as log:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _follow(process: subprocess.Popen[bytes], paths: StatePaths, on_change: Watcher) -> StackState:
    """Reports the states of a starting stack until it is ready."""
    last: StackState | None = None
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        state = StackState.read(paths.state_file)
        if state is not None and state.host.pid == process.pid and state != last:
            last = state
            on_change(state)
            if state.phase == "ready":
                return state
        if last is not None and last.phase == "failed":
            raise StartupError(f"{last.message} The log is {paths.host_log}.")
        if ended:
            raise StartupError(f"The stack ended while it started. The log is {paths.host_log}.{_tail(paths.host_log)}")
        time.sleep(POLL_S)
    raise StartupError(f"The stack was not ready within {START_TIMEOUT_S:g} s. The log is {paths.host_log}.")


def _tail(log: Path) -> str:
    """Returns the last line of a log, led by a space; empty when there is none."""
    lines = log.read_text(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f" It ends with: {last}" if last else ""


def _end(host_pid: int) -> None:
    """Asks a supervisor to end, and ends by force what it leaves."""
    try:
        host = psutil.Process(host_pid)
    except psutil.NoSuchProcess:
        return
    family = tree(host)
    terminate([host], grace_s=STOP_GRACE_S)
    terminate(family, grace_s=KILL_GRACE_S)
