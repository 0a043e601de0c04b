"""What a running stack says of itself, in one file that is replaced whole."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

Phase = Literal["ray", "controller", "model", "engine", "ready", "stopping", "failed"]

CLOCK_TOLERANCE_S = 2.0
"""A process's start time is derived from the clock and moves when the clock is set."""


class ProcessRef(BaseModel):
    """A process that is not mistaken for a later one with the same pid.

    Attributes:
        pid: Process id.
        create_time: Start of the process, in Unix seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    create_time: float

    @classmethod
    def of(cls, pid: int) -> ProcessRef:
        """Refers to a live process.

        Raises:
            psutil.NoSuchProcess: There is none.
        """
        return cls(pid=pid, create_time=psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        """Returns the process if it still runs."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.create_time) < CLOCK_TOLERANCE_S
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


class StackState(BaseModel):
    """One stack.

    Attributes:
        phase: What the stack waits for while it starts; then "ready", "stopping" or "failed".
        message: Detail of the phase for people; the reason when it failed.
        host: The supervisor.
        controller: The controller, once it was started.
        front: The TLS front, where there is one.
        gateway_endpoint: ``host:port`` for clients on this machine.
        front_endpoint: ``host:port`` of the TLS front; empty for none.
        controller_endpoint: ``host:port`` for administrators.
        model: Model as configured.
        trace_file: Spans as JSON lines.
        controller_restarts: Times that the controller died and was started again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    phase: Phase
    message: str = ""
    host: ProcessRef
    controller: ProcessRef | None = None
    front: ProcessRef | None = None
    gateway_endpoint: str
    front_endpoint: str = ""
    controller_endpoint: str
    model: str
    trace_file: Path
    controller_restarts: int = 0

    def write(self, path: Path) -> None:
        """Replaces the file at ``path`` in one step, so that a reader never sees half of it."""
        partial = path.with_suffix(".partial")
        partial.write_text(self.model_dump_json(indent=2) + "\n")
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> StackState | None:
        """Returns the state, or None when there is none or it is of another release."""
        try:
            return cls.model_validate_json(path.read_text())
        except (FileNotFoundError, ValidationError):
            return None
