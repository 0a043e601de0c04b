"""The controller as a child process: started, watched, started again when it dies."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from reasonserve.config import ControllerConfig
from reasonserve.errors import StartupError
from reasonserve.stack.paths import StatePaths
from reasonserve.stack.state import ProcessRef

HEALTH_TIMEOUT_S = 60.0
RESTART_DELAYS_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Waits before the first, second, ... restart; when they are used up, the controller stays down."""
STEADY_S = 60.0
"""A controller that ran this long has its restarts forgiven."""
GRACE_S = 5.0

logger = logging.getLogger(__name__)


def command(config: ControllerConfig, paths: StatePaths) -> list[str]:
    """Returns the controller's command line."""
    url = config.database_url or f"sqlite:///{paths.database_file}"
    return [
        *(sys.executable, "-m", "reasonserve.controller"),
        *("--host", config.host, "--port", str(config.port)),
        *("--database-url", url, "--admin-token-file", str(paths.admin_token_file)),
        *("--lease-ttl-s", str(config.lease_ttl_s)),
        *(("--metrics-port", str(config.metrics_port)) if config.metrics_port else ()),
    ]


class ControllerChild:
    """Owns the controller process. `stop` ends it for good.

    Args:
        argv: Command line.
        on_start: Called with the process whenever one was started.
    """

    def __init__(self, argv: list[str], on_start: Callable[[ProcessRef], None]) -> None:
        self._argv = argv
        self._on_start = on_start
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._lost = False
        self._process = self._spawn()
        self._watcher = threading.Thread(target=self._watch, name="controller-watch", daemon=True)

    def _spawn(self) -> subprocess.Popen[bytes]:
        # Its own session: a terminal's Ctrl-C must reach the supervisor alone, which ends it in order.
        process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, start_new_session=True)
        self._on_start(ProcessRef.of(process.pid))
        return process

    @property
    def lost(self) -> bool:
        """Whether the controller died so often that it is no longer restarted."""
        return self._lost

    def wait_healthy(self, endpoint: str, timeout_s: float = HEALTH_TIMEOUT_S) -> None:
        """Returns when the controller answers SERVING, and watches it from then on.

        Raises:
            StartupError: It ended, or did not answer in time.
        """
        retrying = Retrying(
            retry=retry_if_exception_type((grpc.RpcError, _NotServingError)),
            stop=stop_after_delay(timeout_s),
            wait=wait_fixed(0.1),
        )
        try:
            with grpc.insecure_channel(endpoint) as channel:
                retrying(self._check, health_pb2_grpc.HealthStub(channel))
        except RetryError as error:
            raise StartupError(f"The controller did not become healthy within {timeout_s:g} s.") from error
        self._watcher.start()

    def _check(self, stub: health_pb2_grpc.HealthStub) -> None:
        if (code := self._process.poll()) is not None:
            raise StartupError(f"The controller ended with exit code {code} before it was healthy.")
        if stub.Check(health_pb2.HealthCheckRequest(), timeout=2).status != health_pb2.HealthCheckResponse.SERVING:
            raise _NotServingError

    def _watch(self) -> None:
        restarts = 0
        while not self._stopping.is_set():
            try:
                self._process.wait(timeout=STEADY_S)
            except subprocess.TimeoutExpired:
                restarts = 0
                continue
            ended = f"the controller ({self._process.pid}) ended with exit code {self._process.returncode}"
            if restarts == len(RESTART_DELAYS_S):
                logger.error("%s, too often: it stays down", ended)
                self._lost = True
                return
            logger.warning("%s and is started again", ended)
            self._stopping.wait(RESTART_DELAYS_S[restarts])
            restarts += 1
            with self._starting:
                if not self._stopping.is_set():
                    self._process = self._spawn()

    def stop(self) -> None:
        """Ends the process for good; safe to call twice."""
        with self._starting:
            self._stopping.set()
        self._process.terminate()
        try:
            self._process.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _NotServingError(Exception):
    """The controller answers but is not ready."""
