"""Runs the load on a stack of its own, kills what the plan says, and collects what is left at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
from rich.progress import Progress

from reasonserve.bench.local_stack import LocalStack, local_stack
from reasonserve.bench.serve_soak import cluster, plan, traces
from reasonserve.bench.serve_soak.account import Loss, account
from reasonserve.bench.serve_soak.cluster import Holdings
from reasonserve.bench.serve_soak.load import Load
from reasonserve.bench.serve_soak.memory import Sample, growth_faults, slopes
from reasonserve.bench.serve_soak.plan import Setup
from reasonserve.bench.serve_soak.report import Report
from reasonserve.errors import ReasonServeError

Show = Callable[..., None]
"""Changes the progress bar."""

DTYPE = "float32"
"""In bfloat16 oneDNN keeps a compiled kernel for each number of rows that it meets; a leak would hide behind them."""

SPANS_S = 3.0
"""The last spans of a process are written so long after their requests."""

LOG_LINES = 30
"""So much of the stack's log is told where the controller was started again too often."""


@dataclass
class Disturbance:
    """What was killed.

    Attributes:
        replica_at_s: When a replica was, from the beginning of the load.
        controller_at_s: When the controller was.
        orphans: Processes that the killed replica left behind.
    """

    replica_at_s: float = 0.0
    controller_at_s: float = 0.0
    orphans: list[psutil.Process] = field(default_factory=list)


@dataclass
class Watched:
    """What was seen while the load ran.

    Attributes:
        samples: Memory of processes.
        replicas: Ids of all replicas that held a lease.
    """

    samples: list[Sample] = field(default_factory=list)
    replicas: set[str] = field(default_factory=set)


def measure(setup: Setup, model: str, vocabulary: int, progress: Progress) -> Report:
    """Runs everything.

    Raises:
        JobFailedError: The stack did not start, or requests failed while the capacity was measured.
    """
    task = progress.add_task("Starting the stack", total=None)
    with local_stack(configuration(setup, model)) as stack:
        keys = {tenant.tenant_id: stack.create_tenant(tenant) for tenant in plan.tenants(setup)}
        stack.wait_for_replicas(setup.replicas)

        def show(**changes: Any) -> None:
            progress.update(task, **changes)

        return asyncio.run(_soak(setup, stack, keys, vocabulary, show))


def configuration(setup: Setup, model: str) -> dict[str, Any]:
    """Returns the stack's configuration; SGLang's own checks are on and end an engine whose pool leaks."""
    return {
        "model": model,
        "engine": {
            "dtype": DTYPE,
            "pool_slots": setup.pool_slots,
            "buffer_tokens": setup.buffer_tokens,
            "grammar_backend": "none",
            "strict_checks": True,
        },
        "replicas": {"count": setup.replicas, "num_cpus": 0.5},
    }


async def _soak(setup: Setup, stack: LocalStack, keys: dict[str, str], vocabulary: int, show: Show) -> Report:
    before = cluster.holdings(stack).replicas
    disturbance, watched = Disturbance(), Watched(replicas=set(before))
    async with Load(stack.endpoint, keys, setup.deadline_s) as load:
        show(description="Measuring the capacity")
        calm = plan.requests(setup, vocabulary, per_s=None)
        capacity = await load.capacity(calm, setup.clients, setup.capacity_s)
        planned = plan.load(setup, vocabulary, capacity_per_s=capacity.per_s)
        show(description="Under load", total=len(planned))
        load.begin()
        async with _watched(setup, stack, load, watched), asyncio.TaskGroup() as group:
            group.create_task(_disturb(setup, stack, load, disturbance))
            group.create_task(load.run(planned, capacity.usual_s, lambda: show(advance=1)))
        seconds = load.now_s
    show(description="Waiting for the last slots", total=None)
    held = await asyncio.to_thread(cluster.settle, stack, setup.replicas, setup.settle_s)
    await asyncio.sleep(SPANS_S)
    watched.replicas |= set(held.replicas)
    spans = stack.spans
    survived = traces.survived(spans, set(before) & set(held.replicas))
    counted = account(planned, load.outcomes, Loss(disturbance.replica_at_s, survived))
    found = slopes(watched.samples, warm_up_s=setup.warm_up_s)
    faults = [*counted.faults, *traces.loose_ends(planned, spans), *growth_faults(found, most=setup.most_slope)]
    faults += stack_faults(setup, held, watched.replicas, before)
    faults += controller_faults(stack.state.controller_restarts, stack.log)
    faults += [f"process {p.pid} outlived the replica that was killed" for p in disturbance.orphans if _runs(p)]
    return Report(
        setup=setup,
        capacity_per_s=capacity.per_s,
        capacity_refused=capacity.refused,
        requests=len(planned),
        seconds=seconds,
        replica_killed_s=disturbance.replica_at_s,
        controller_killed_s=disturbance.controller_at_s,
        account=counted,
        slopes=tuple(found),
        run_again=traces.run_again(planned, spans),
        faults=tuple(faults),
    )


def stack_faults(setup: Setup, held: Holdings, seen: set[str], before: tuple[str, ...]) -> list[str]:
    """Returns what is wrong with the stack once the load has ended.

    Args:
        setup: What should be.
        held: What it holds.
        seen: Ids of all replicas that ever held a lease.
        before: Those before the load.
    """
    faults = held.leaks()
    if len(held.replicas) != setup.replicas:
        faults.append(f"{len(held.replicas)} replicas hold a lease at the end, not {setup.replicas}")
    if len(seen) != len(before) + 1:
        faults.append(f"{len(seen)} replicas were seen, not the {len(before)} and the successor of the killed one")
    return faults


def controller_faults(restarts: int, log: Sequence[str]) -> list[str]:
    """Returns what is wrong with the controller's restarts, and the end of the stack's log where something is."""
    if restarts == 1:
        return []
    told = f"the controller was started again {restarts} times; it was killed once"
    return [told, *(f"log: {line}" for line in log[-LOG_LINES:])]


async def _disturb(setup: Setup, stack: LocalStack, load: Load, seen: Disturbance) -> None:
    """Kills a replica and the controller by SIGKILL, each at its time; what a replica leaves must end by itself."""
    await asyncio.sleep(setup.replica_kill * 60 * setup.minutes - load.now_s)
    replica = await asyncio.to_thread(cluster.a_replica, stack, setup.seed)
    seen.orphans = replica.children(recursive=True)
    seen.replica_at_s = load.now_s  # with nothing in between: what is sent from now on has not met it
    replica.kill()
    await asyncio.sleep(setup.controller_kill * 60 * setup.minutes - load.now_s)
    controller = await asyncio.to_thread(cluster.the_controller, stack)
    seen.controller_at_s = load.now_s
    controller.kill()


@asynccontextmanager
async def _watched(setup: Setup, stack: LocalStack, load: Load, watched: Watched) -> AsyncIterator[None]:
    """Looks at memory and replicas from time to time while its body runs."""

    async def watch() -> None:
        while True:
            began = time.monotonic()
            watched.samples += await asyncio.to_thread(cluster.samples, stack, load.now_s)
            with suppress(ReasonServeError):  # the controller is being started again
                watched.replicas |= set((await asyncio.to_thread(cluster.holdings, stack)).replicas)
            await asyncio.sleep(max(0.0, setup.sample_s - (time.monotonic() - began)))

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait((watching,))
    if not watching.cancelled():
        watching.result()  # it failed: what it would have seen is missing


def _runs(process: psutil.Process) -> bool:
    """Returns whether a process still runs; psutil knows it from a later one with its id."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
