"""The supervisor of a local stack: ``python -m reasonserve.stack.host --config F --state-dir D``.

Runs in the foreground until SIGTERM or SIGINT, then ends Serve, Ray and the controller in that
order. It writes every step to ``state.json``, where the command line watches it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
from concurrent.futures import Future
from pathlib import Path
from types import FrameType
from typing import Any

from reasonserve.config import ServiceConfig
from reasonserve.errors import ReasonServeError, StartupError
from reasonserve.front.process import FrontChild
from reasonserve.models.resolve import resolve_model
from reasonserve.stack import serving
from reasonserve.stack.controller_child import ControllerChild, command
from reasonserve.stack.paths import StatePaths
from reasonserve.stack.priority import yield_to_others
from reasonserve.stack.profiles import ensure_active
from reasonserve.stack.state import Phase, ProcessRef, StackState
from reasonserve.telemetry.logs import set_up_logging

DEFAULT_ENGINE_FACTORY = "reasonserve.replica.sglang_engine:create"
WATCH_INTERVAL_S = 0.5


class StopRequested(BaseException):
    """A signal asked the stack to end; not an Exception, so that no start-up step swallows it."""


class Host:
    """Owns a stack from its first process to its last.

    Args:
        config: The configuration.
        paths: Files of the state directory.
        engine_factory: ``module:function`` that creates a replica's engine.
        owner_pid: The stack ends when this parent process does; None outlives it.
    """

    def __init__(self, config: ServiceConfig, paths: StatePaths, engine_factory: str, owner_pid: int | None) -> None:
        self._config = config
        self._paths = paths
        self._engine_factory = engine_factory
        self._owner_pid = owner_pid
        self._controller: ControllerChild | None = None
        self._front: FrontChild | None = None
        self._writing = threading.Lock()
        self._state = StackState(
            phase="ray",
            host=ProcessRef.of(os.getpid()),
            gateway_endpoint=f"127.0.0.1:{config.gateway.port}",
            front_endpoint=f"{config.front.host}:{config.front.port}" if config.front.tls_cert else "",
            controller_endpoint=config.controller.endpoint,
            model=config.model,
            trace_file=config.telemetry.trace_file or paths.trace_file,
        )

    def run(self) -> int:
        """Starts the stack, waits for a signal and ends it; returns the exit code."""
        _on_signals(_raise_stop)
        try:
            self._start()
            self._wait()
        except (StopRequested, SystemExit):  # Ray's own handler, in force while it starts, raises the latter.
            self._enter("stopping")
            code = 0
        except ReasonServeError as error:
            self._enter("failed", error.message)
            code = 1
        except Exception as error:
            traceback.print_exc()
            self._enter("failed", f"{type(error).__name__}: {error}")
            code = 1
        finally:
            _on_signals(signal.SIG_IGN)  # The end must not be cut short by a second Ctrl-C.
            self._stop()
        return code

    def _start(self) -> None:
        self._paths.prepare()
        os.environ.update(serving.environment(self._config, self._paths.trace_file))
        self._enter("ray")
        # Three things that do not need each other; Ray must be on this thread.
        self._controller = ControllerChild(command(self._config.controller, self._paths), self._on_controller)
        resolving = _in_thread(resolve_model, self._config.model, lambda text: self._enter_if("model", str(text)))
        serving.start(self._config)
        _on_signals(_raise_stop)  # ray.init put its own handler in.
        self._enter("controller")
        self._controller.wait_healthy(self._config.controller.endpoint)
        self._enter("model", self._config.model)
        model_path = resolving.result()
        ensure_active(self._config.controller.endpoint, self._paths.admin_token_file, model_path)
        self._enter("engine")
        token_file = self._paths.admin_token_file
        serving.deploy(
            self._config, admin_token_file=token_file, model_path=model_path, engine_factory=self._engine_factory
        )
        if self._config.front.tls_cert is not None:
            self._front = FrontChild(self._config, self._paths.root, self._on_front)
        self._enter("ready")

    def _wait(self) -> None:
        assert self._controller is not None
        told = False
        idle = threading.Event()
        while self._owner_pid is None or os.getppid() == self._owner_pid:
            idle.wait(WATCH_INTERVAL_S)
            if self._front is not None:
                self._front.keep_alive()
            if self._controller.lost and not told:
                told = True
                self._enter("ready", "the controller keeps dying and is down; replicas serve on their last lease")
        raise StopRequested

    def _stop(self) -> None:
        try:
            if self._front is not None:
                self._front.stop()
            serving.stop()
        finally:
            if self._controller is not None:
                self._controller.stop()
        if self._state.phase != "failed":
            self._paths.state_file.unlink(missing_ok=True)

    def _on_controller(self, process: ProcessRef) -> None:
        first = self._state.controller is None
        self._update(controller=process, controller_restarts=self._state.controller_restarts + (not first))

    def _on_front(self, pid: int) -> None:
        self._update(front=ProcessRef.of(pid))

    def _enter(self, phase: Phase, message: str = "") -> None:
        self._update(phase=phase, message=message)

    def _enter_if(self, phase: Phase, message: str) -> None:
        """Details a phase if it is the present one; steps of others run beside it."""
        if self._state.phase == phase:
            self._update(message=message)

    def _update(self, **changes: Any) -> None:
        with self._writing:
            self._state = self._state.model_copy(update=changes)
            self._state.write(self._paths.state_file)


def _raise_stop(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    _on_signals(signal.SIG_IGN)
    raise StopRequested


def _on_signals(handler: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)


def _in_thread(function: Any, *args: Any) -> Future[Path]:
    """Runs a function on a thread that does not outlive the process's will to end."""
    future: Future[Path] = Future()

    def work() -> None:
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="model", daemon=True).start()
    return future


def main(argv: list[str] | None = None) -> int:
    """Runs a stack in the foreground."""
    parser = argparse.ArgumentParser(prog="python -m reasonserve.stack.host", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="YAML or JSON file of the configuration")
    parser.add_argument("--state-dir", type=Path, default=None, help="directory of the stack's state")
    parser.add_argument("--engine-factory", default=DEFAULT_ENGINE_FACTORY, help=argparse.SUPPRESS)
    parser.add_argument("--owner-pid", type=int, default=None, help="end when this parent process ends")
    options = parser.parse_args(argv)
    set_up_logging("supervisor")
    yield_to_others()
    try:
        config = ServiceConfig.from_file(options.config)
    except StartupError as error:
        sys.stderr.write(error.message + "\n")
        return 1
    return Host(config, StatePaths.resolve(options.state_dir), options.engine_factory, options.owner_pid).run()


if __name__ == "__main__":
    sys.exit(main())
