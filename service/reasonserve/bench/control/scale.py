"""How the controller's work grows with replicas and tenants: real process, real gRPC, simulated replicas."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.progress import Progress
from rich.table import Table

from reasonserve.bench.control.load import Job, Seen
from reasonserve.bench.control.process import ControllerProcess
from reasonserve.bench.control.split_time import full_split_s
from reasonserve.controller.records import Change, RequestBudget, Tenant, TenantCreated
from reasonserve.controller.store import Store

CAPACITY = 100_000
TTL_S = 10.0
STORED_PER_ACTIVE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is measured.

    Attributes:
        sizes: Replicas, and as many tenants with demand; a hundred times as many are stored.
        named: Most tenants with demand at a replica.
        load: Mean demand as a part of the memory.
        period_s: Renewal period.
        seconds: How long each size is measured.
    """

    sizes: tuple[int, ...] = (10, 100, 1000)
    named: int = 16
    load: float = 0.9
    period_s: float = 2.0
    seconds: float = 30.0


FULL = Setup()
QUICK = Setup(sizes=(10, 50), period_s=0.5, seconds=4.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One size.

    Attributes:
        replicas: Replicas, and tenants with demand.
        stored: Stored tenants.
        cells: Tenants with demand at each replica, summed.
        renewals_per_s: Renewals that were answered.
        due_per_s: Renewals of replicas that never wait: with the jitter, a little more than one a period.
        p50_ms: Median time from a report to its answer.
        p99_ms: 99th percentile of the same.
        unasked_per_s: Answers that followed no report.
        answer_bytes: Mean size of an answer.
        lapsed: Leases that lapsed.
        cores: Processor time of the controller, in cores.
        memory_mib: Resident memory of the controller.
        writes_per_s: Transactions in the database.
        joins_per_s: Replicas that joined, from none to all.
        splits_per_s: How often the memory was split, over the controller's whole life.
        split_ms: Processor time of one split, mean over the same.
        full_split_ms: Processor time of one split of all cells at once, median.
    """

    replicas: int
    stored: int
    cells: int
    renewals_per_s: float
    due_per_s: float
    p50_ms: float
    p99_ms: float
    unasked_per_s: float
    answer_bytes: float
    lapsed: int
    cores: float
    memory_mib: float
    writes_per_s: float
    joins_per_s: float
    splits_per_s: float
    split_ms: float
    full_split_ms: float


def measure(setup: Setup, progress: Progress) -> list[Row]:
    """Measures each size in turn, each with a controller of its own."""
    task = progress.add_task("Sizes", total=len(setup.sizes))
    rows = []
    for size in setup.sizes:
        progress.update(task, description=f"{size} replicas")
        with tempfile.TemporaryDirectory() as folder:
            rows.append(_measure_size(setup, size, Path(folder), progress))
        progress.advance(task)
    return rows


def _measure_size(setup: Setup, size: int, folder: Path, progress: Progress) -> Row:
    controller = ControllerProcess(folder, lease_ttl_s=TTL_S)
    step = progress.add_task("Storing tenants", total=None)
    store_tenants(controller.database, size)
    progress.update(step, description="Starting the controller")
    started = time.monotonic()
    controller.start()
    try:
        progress.update(step, description="Joining and renewing")
        job = _job(controller, setup, size)
        seen, use = _run(job, controller, folder)
    finally:
        controller.end()
        progress.remove_task(step)
    lived = time.monotonic() - started
    cost = controller.split_cost()
    latencies = sorted(seen.latencies or [0.0])
    return Row(
        replicas=size,
        stored=size * STORED_PER_ACTIVE,
        cells=job.named * size,
        renewals_per_s=len(latencies) / use.seconds,
        due_per_s=size / (setup.period_s * 0.9),
        p50_ms=1e3 * statistics.median(latencies),
        p99_ms=1e3 * latencies[math.ceil(0.99 * len(latencies)) - 1],
        unasked_per_s=seen.unasked / use.seconds,
        answer_bytes=seen.answer_bytes / max(1, len(latencies) + seen.unasked),
        lapsed=seen.lapsed,
        cores=use.cpu_s / use.seconds,
        memory_mib=use.memory_mib,
        writes_per_s=use.writes / use.seconds,
        joins_per_s=size / seen.join_s,
        splits_per_s=cost.splits / lived,
        split_ms=1e3 * cost.seconds / max(1, cost.splits),
        full_split_ms=1e3 * full_split_s(size, job.named, setup.load, capacity=CAPACITY),
    )


def store_tenants(database: Path, size: int) -> None:
    """Stores tenants in one transaction; the first `size` of them will have demand."""
    budget = RequestBudget(min_tokens=64, default_tokens=256, max_tokens=2048)
    store = Store(f"sqlite:///{database}")
    tenants = (
        Tenant(
            tenant_id=f"t{i:06}",
            display_name=f"Tenant {i}",
            weight=1 + i % 4,
            guaranteed_slots=CAPACITY // 2 if i < size else 0,
            limit_slots=2 * CAPACITY,
            request_budget=budget,
            revision=1,
        )
        for i in range(size * STORED_PER_ACTIVE)
    )
    store.write(Change(1, tuple(map(TenantCreated, tenants))))
    store.close()


def _job(controller: ControllerProcess, setup: Setup, size: int) -> Job:
    return Job(
        endpoint=controller.endpoint,
        token=controller.token,
        replicas=size,
        tenants=size,
        named=min(setup.named, size),
        capacity=CAPACITY,
        load=setup.load,
        period_s=setup.period_s,
        ttl_s=TTL_S,
        seconds=setup.seconds,
    )


@dataclass(frozen=True, slots=True)
class _Use:
    seconds: float
    cpu_s: float
    writes: int
    memory_mib: float


def _run(job: Job, controller: ControllerProcess, folder: Path) -> tuple[Seen, _Use]:
    """Runs the replicas in a process of their own, and looks at the controller while they are measured."""
    (folder / "job.json").write_text(json.dumps(asdict(job)))
    command = [
        sys.executable,
        "-m",
        "reasonserve.bench.control.load",
        str(folder / "job.json"),
        str(folder / "seen.json"),
    ]
    marks = []
    with (folder / "load.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        for _ in process.stdout:
            marks.append(_look(controller))
        process.wait(timeout=120)
    if process.returncode != 0 or len(marks) != 2:
        raise RuntimeError(f"The simulated replicas failed: {(folder / 'load.log').read_text()[-2000:]}")
    (began, cpu_before, revision_before, _), (ended, cpu_after, revision_after, memory_mib) = marks
    seen = Seen(**json.loads((folder / "seen.json").read_text()))
    return seen, _Use(ended - began, cpu_after - cpu_before, revision_after - revision_before, memory_mib)


def _look(controller: ControllerProcess) -> tuple[float, float, int, float]:
    """Returns the time, processor time, revision and memory."""
    process: psutil.Process = controller.running
    times = process.cpu_times()
    mark = time.monotonic(), times.user + times.system
    memory_mib = process.memory_info().rss / (1 << 20)
    # Each transaction is one revision. Read beside the controller, so that it is not disturbed.
    with contextlib.closing(sqlite3.connect(controller.database)) as connection:
        (revision,) = connection.execute("SELECT revision FROM meta").fetchone()
    return *mark, revision, memory_mib


def table(rows: Sequence[Row]) -> Table:
    """Returns the sizes side by side; the last column is the growth of the last size over the one before."""
    shown = Table(title="The controller under renewals", title_justify="left")
    shown.add_column("replicas x tenants with demand")
    for row in rows:
        shown.add_column(str(row.replicas), justify="right")
    shown.add_column("growth", justify="right")
    for name, label, digits in _LABELS:
        values = [float(getattr(row, name)) for row in rows]
        growth = f"{values[-1] / values[-2]:.1f}x" if len(values) > 1 and values[-2] else ""
        shown.add_row(label, *(f"{value:,.{digits}f}" for value in values), growth)
    return shown


_LABELS = (
    ("stored", "stored tenants", 0),
    ("cells", "cells: tenants with demand at each replica", 0),
    ("due_per_s", "renewals due per second", 1),
    ("renewals_per_s", "renewals answered per second", 1),
    ("p50_ms", "renewal latency, median, ms", 1),
    ("p99_ms", "renewal latency, p99, ms", 1),
    ("unasked_per_s", "answers unasked per second", 1),
    ("answer_bytes", "bytes of an answer, mean", 0),
    ("lapsed", "leases lapsed", 0),
    ("cores", "controller, cores", 3),
    ("memory_mib", "controller, MiB", 0),
    ("writes_per_s", "database writes per second", 2),
    ("joins_per_s", "joins per second, at the start", 1),
    ("splits_per_s", "splits per second", 2),
    ("split_ms", "one split in the controller, ms of processor time", 2),
    ("full_split_ms", "one split of all cells, ms of processor time", 2),
)


def n_log_n(rows: Sequence[Row]) -> float:
    """Returns how much faster than n log n a whole split grew from the first size to the last; at most 1 is as slow."""
    first, last = rows[0], rows[-1]
    expected = last.cells * math.log2(last.cells) / (first.cells * math.log2(first.cells))
    return last.full_split_ms / first.full_split_ms / expected


def as_json(setup: Setup, rows: Sequence[Row]) -> dict[str, Any]:
    """Returns every figure."""
    return {"setup": asdict(setup), "rows": [asdict(row) for row in rows], "split_growth_over_n_log_n": n_log_n(rows)}
