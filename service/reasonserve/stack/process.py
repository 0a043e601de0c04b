"""Ending processes that we started, and only those."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import psutil


def tree(process: psutil.Process) -> list[psutil.Process]:
    """Returns the process and everything below it."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def terminate(processes: Sequence[psutil.Process], *, grace_s: float) -> None:
    """Asks each process to end, waits, then kills what is left.

    Args:
        processes: Handles taken while the processes were ours; psutil refuses a reused pid.
        grace_s: Time between asking and killing, in seconds.
    """
    _each(processes, psutil.Process.terminate)
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    _each(alive, psutil.Process.kill)
    psutil.wait_procs(alive, timeout=grace_s)


def _each(processes: Sequence[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            act(process)
