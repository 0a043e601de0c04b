"""The stack under load as seen from outside: its processes, what it holds, and what is killed of it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from reasonserve.api.v1 import cluster_service_pb2 as cluster_pb
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.bench.job import JobFailedError
from reasonserve.bench.local_stack import LocalStack
from reasonserve.bench.serve_soak.memory import Sample
from reasonserve.cli import client
from reasonserve.errors import ReasonServeError

ROLES = {
    "ray::ProxyActor": "proxy",
    "ray::ServeReplica:reasonserve:Gateway": "gateway",
    "ray::ServeReplica:reasonserve:Replica": "replica",
}
"""Processes by how their titles begin; Ray writes them."""
CONTROLLER, ENGINE = "controller", "engine"
_SPAWNED = ("sglang::", "multiprocessing.spawn")


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the cluster holds, as the controller was last told.

    Attributes:
        replicas: Ids of the replicas with a live lease.
        reserved: Reserved slots by tenant; tenants with none are left out.
        used: Used slots by replica, likewise.
        active: Requests that run, by tenant, likewise.
        queued: Requests that wait, by tenant, likewise.
    """

    replicas: tuple[str, ...]
    reserved: dict[str, int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    active: dict[str, int] = field(default_factory=dict)
    queued: dict[str, int] = field(default_factory=dict)

    def leaks(self) -> list[str]:
        """Returns what is held although no request runs."""
        held = (
            (self.reserved, "slots of {} are reserved"),
            (self.used, "slots of replica {} are in use"),
            (self.active, "requests of {} run"),
            (self.queued, "requests of {} wait"),
        )
        return [f"{count} {text.format(who)} though no client waits" for by, text in held for who, count in by.items()]


def holdings(stack: LocalStack) -> Holdings:
    """Asks the controller what the cluster holds.

    Raises:
        ReasonServeError: It does not answer.
    """
    with client.admin(None, None, stack.state_dir) as admin:
        status = admin.call(admin.services.cluster.GetClusterStatus, cluster_pb.GetClusterStatusRequest())
        usage = admin.call(admin.services.tenants.ListTenantUsage, tenant_pb.ListTenantUsageRequest()).usage
    return Holdings(
        replicas=tuple(sorted(replica.replica_id for replica in status.replicas)),
        reserved=_nonzero((tenant.tenant_id, tenant.reserved_slots) for tenant in status.tenants),
        used=_nonzero((replica.replica_id, replica.used_slots) for replica in status.replicas),
        active=_nonzero((tenant.tenant_id, tenant.active_requests) for tenant in status.tenants),
        queued=_nonzero((tenant.tenant_id, tenant.queued_requests) for tenant in usage),
    )


def settle(stack: LocalStack, replicas: int, within_s: float) -> Holdings:
    """Returns what the cluster holds once nothing is held by so many replicas, or when the time is over.

    Raises:
        ReasonServeError: The controller does not answer at the end.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            held = holdings(stack)
            if time.monotonic() >= deadline or (len(held.replicas) == replicas and not held.leaks()):
                return held
        except ReasonServeError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(1.0)


def processes(stack: LocalStack) -> dict[str, list[psutil.Process]]:
    """Returns the stack's processes that are watched, by role."""
    state = stack.state
    found: dict[str, list[psutil.Process]] = {CONTROLLER: []}
    if state.controller is not None and (controller := state.controller.find()):
        found[CONTROLLER].append(controller)
    for process in psutil.Process(state.host.pid).children(recursive=True):
        with suppress(psutil.Error):
            title = " ".join(process.cmdline())
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            for begin, role in ROLES.items():
                if title.startswith(begin):
                    found.setdefault(role, []).append(process)
    found[ENGINE] = [engine for replica in found.get("replica", []) if (engine := engine_of(replica))]
    return found


def engine_of(replica: psutil.Process) -> psutil.Process | None:
    """Returns the process of a replica's scheduler, the first that SGLang spawns; None while there is none.

    SGLang's title for it is not always there: setproctitle finds its place by the first environment variable and does
    nothing once that one was set anew, and their order is Ray's.
    """
    spawned = []
    with suppress(psutil.Error):
        for child in replica.children():
            with suppress(psutil.Error):
                if any(word in " ".join(child.cmdline()) for word in _SPAWNED):
                    spawned.append(child)
    return min(spawned, key=lambda process: process.pid, default=None)


def samples(stack: LocalStack, at_s: float) -> list[Sample]:
    """Looks at the memory of every process that is watched."""
    found = []
    for role, family in processes(stack).items():
        for process in family:
            with suppress(psutil.Error):
                found.append(Sample(role, process.pid, at_s, int(process.memory_info().rss)))
    return found


def a_replica(stack: LocalStack, seed: int) -> psutil.Process:
    """Returns the process of one of the replicas.

    Raises:
        JobFailedError: There is no replica.
    """
    replicas = processes(stack).get("replica", [])
    if not replicas:
        raise JobFailedError("No replica's process was found below the stack's supervisor.")
    return random.Random(seed).choice(replicas)


def the_controller(stack: LocalStack) -> psutil.Process:
    """Returns the controller's process.

    Raises:
        JobFailedError: There is none.
    """
    found = processes(stack)[CONTROLLER]
    if not found:
        raise JobFailedError("The controller's process was not found.")
    return found[0]


def _nonzero(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    return {who: count for who, count in counts if count}
