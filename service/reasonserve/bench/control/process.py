"""A controller in a process of its own, for benchmarks: started, measured, killed, started again."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import grpc
import psutil

from reasonserve.controller_client import Stubs, admin_metadata, read_admin_token, stubs
from reasonserve.errors import StartupError

_LISTENING = re.compile(r"Listening on \S+:(\d+) ")
_SPLITS = re.compile(r"Split the memory (\d+) times in ([\d.]+) s of processor time; told (\d+) leases")
_START_S = 120.0

Response = TypeVar("Response")


class SplitCost(NamedTuple):
    """What splitting took over a controller's life, as it says itself when it ends."""

    splits: int
    seconds: float
    told: int


class ControllerProcess:
    """The controller of a folder, with its database and its token.

    Args:
        folder: Where database, token and log lie.
        lease_ttl_s: Lease period.
    """

    def __init__(self, folder: Path, *, lease_ttl_s: float) -> None:
        self._folder, self._lease_ttl_s = folder, lease_ttl_s
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def database(self) -> Path:
        """The database file."""
        return self._folder / "controller.db"

    @property
    def log(self) -> str:
        """What it logged, over all starts."""
        return (self._folder / "log").read_text()

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        """The admin token."""
        return read_admin_token(self._folder / "token")

    @property
    def running(self) -> psutil.Process:
        """The process."""
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def start(self) -> None:
        """Starts it, on the port that it had before if it ran before, and returns when it listens.

        Raises:
            StartupError: It did not.
        """
        command = [sys.executable, "-m", "reasonserve.controller", "--port", str(self.port)]
        command += ["--database-url", f"sqlite:///{self.database}", "--admin-token-file", str(self._folder / "token")]
        command += ["--lease-ttl-s", str(self._lease_ttl_s)]
        with (self._folder / "log").open("ab") as log:
            before = log.tell()
            self._process = subprocess.Popen(command, stderr=log)
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if found := _LISTENING.search(self.log[before:]):
                self.port = int(found[1])
                return
            time.sleep(0.02)
        raise StartupError(f"The controller did not start: {self.log[before:][-500:]}")

    def kill(self) -> None:
        """Ends it as a power loss would."""
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM) -> None:
        """Ends it; safe to call twice."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=60)
            self._process = None

    def split_cost(self) -> SplitCost:
        """Returns what splitting took, once it ended."""
        *_, found = _SPLITS.finditer(self.log)
        return SplitCost(int(found[1]), float(found[2]), int(found[3]))


class AdminClient:
    """Blocking calls of a controller as its administrator. `close` it.

    Args:
        controller: Whom to call.
    """

    def __init__(self, controller: ControllerProcess) -> None:
        self._channel = grpc.insecure_channel(
            controller.endpoint, options=(("grpc.max_receive_message_length", 64 << 20),)
        )
        self._metadata = admin_metadata(controller.token)
        self._stubs = stubs(self._channel)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What presents the admin token."""
        return self._metadata

    @property
    def services(self) -> Stubs:
        """The controller's services."""
        return self._stubs

    def call(self, method: Callable[..., Response], request: object, *, timeout_s: float = 30.0) -> Response:
        """Calls a method, and waits for the controller where it is not there yet."""
        return method(request, metadata=self._metadata, timeout=timeout_s, wait_for_ready=True)

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()
