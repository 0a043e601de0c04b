"""What ``doctor`` looks at. Each check reads the machine and returns what it saw; none changes anything."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil

from reasonserve.config import DEFAULT_CONTROLLER_PORT, DEFAULT_GATEWAY_PORT, DEFAULT_MODEL, GatewayConfig
from reasonserve.models.cache import ModelCache
from reasonserve.models.registry import BUILTIN_MODELS

State = Literal["ok", "warning", "missing"]

GIB = 1 << 30
_LOCK = Path(__file__).parents[3] / "requirements.lock"
_ENTRY_POINTS = {"SGLang plugin": "sglang.srt.plugins", "SGLang platform": "sglang.srt.platforms"}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    Attributes:
        name: What was looked at.
        state: ``missing`` means that the service cannot run; ``warning`` that it may suffer.
        found: What is there.
        remedy: What to do; empty when there is nothing to do.
    """

    name: str
    state: State
    found: str
    remedy: str = ""


def run_checks() -> list[Check]:
    """All checks, in the order in which one would repair."""
    return [
        _python(),
        _packages(),
        *(_entry_point(name, group) for name, group in _ENTRY_POINTS.items()),
        _compiler(),
        _model(),
        _cores(),
        _memory(),
        _disk(),
        _shared_memory(),
        _gpu(),
        *(_port(port) for port in (DEFAULT_GATEWAY_PORT, DEFAULT_CONTROLLER_PORT, GatewayConfig().http_port)),
    ]


def graded(name: str, found: str, value: float, *, needed: float, wanted: float, remedy: str) -> Check:
    """Judges a quantity: below ``needed`` it is missing, below ``wanted`` a warning."""
    if value >= wanted:
        return Check(name, "ok", found)
    return Check(name, "warning" if value >= needed else "missing", found, remedy)


def _python() -> Check:
    found = sys.version.split()[0]
    if (3, 11) <= sys.version_info < (3, 13):
        return Check("Python", "ok", found)
    return Check("Python", "missing", found, "Install Python 3.11 and run make setup")


def differing_packages(lock: str) -> list[str]:
    """Names the pins of a lock that the running environment does not meet."""
    installed = {re.sub(r"[-_.]+", "-", dist.name).lower(): dist.version for dist in metadata.distributions()}
    pins = (line.split(";")[0].strip().split("==") for line in lock.splitlines() if "==" in line)
    return [name for name, pinned in pins if installed.get(name) != pinned]


def _packages() -> Check:
    if not _LOCK.is_file():
        return Check("Packages", "warning", "not a source checkout: no lock to compare", "")
    if differing := differing_packages(_LOCK.read_text()):
        found = f"{len(differing)} differ from requirements.lock: {', '.join(differing[:5])}"
        return Check("Packages", "missing", found, "make setup")
    return Check("Packages", "ok", "as in requirements.lock")


def _entry_point(name: str, group: str) -> Check:
    ours = [entry.value for entry in metadata.entry_points(group=group) if entry.module.startswith("reasonserve.")]
    if ours:
        return Check(name, "ok", ", ".join(ours))
    return Check(name, "missing", f"no entry point in {group}: SGLang would not load it", "make setup")


def _compiler() -> Check:
    """Torch and Triton compile small kernels when they first run."""
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if found:
        return Check("C compiler", "ok", found)
    return Check("C compiler", "missing", "none", "Install gcc or clang from the system's packages")


def _model() -> Check:
    folder = ModelCache.default().find(BUILTIN_MODELS[DEFAULT_MODEL])
    if folder:
        return Check("Default model", "ok", str(folder))
    return Check("Default model", "warning", "not fetched", "reasonserve model fetch (any start does it too)")


def _cores() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return graded("CPU cores", str(cores), cores, needed=1, wanted=2, remedy="Expect slow starts")


def _memory() -> Check:
    free = psutil.virtual_memory().available / GIB
    remedy = "Close other programs; a replica of the default model needs 4 GiB"
    return graded("Free memory", f"{free:.1f} GiB", free, needed=4, wanted=6, remedy=remedy)


def _disk() -> Check:
    root = ModelCache.default().root
    existing = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(existing).free / GIB
    remedy = "Make room, or set REASONSERVE_CACHE to a larger disk"
    return graded("Free disk for models", f"{free:.1f} GiB", free, needed=1, wanted=5, remedy=remedy)


def _shared_memory() -> Check:
    """Ray's object store lies there."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Check("Shared memory", "warning", "no /dev/shm", "Ray falls back to a slower folder")
    size = shutil.disk_usage(folder).total / GIB
    remedy = "In a container, start it with --shm-size=2g"
    return graded("Shared memory", f"{size:.1f} GiB", size, needed=0, wanted=1, remedy=remedy)


def _gpu() -> Check:
    try:
        import torch
    except ImportError:
        return Check("GPU", "missing", "torch is not installed", "make setup, or pip install 'reasonserve[engine]'")
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
        return Check("GPU", "ok", f"{torch.cuda.device_count()} x {', '.join(sorted(names))}")
    return Check("GPU", "ok", "none; the CPU serves small models")


def _port(port: int) -> Check:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            remedy = "Fine if ReasonServe is running; else free it or set another in the configuration"
            return Check(f"Port {port}", "warning", "taken", remedy)
    return Check(f"Port {port}", "ok", "free")
