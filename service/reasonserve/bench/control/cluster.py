"""A controller and some replicas, each in a process of its own, that faults are tried on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from reasonserve.api.v1 import tenant_service_pb2 as pb
from reasonserve.bench.control.process import AdminClient, ControllerProcess
from reasonserve.bench.control.proxy import Proxy
from reasonserve.bench.control.timeline import Told, total

POOL_SLOTS = 4096
LIMITS = {"gold": 3000, "silver": 2000}
GUARANTEES = {"gold": 1500, "silver": 1200}
_READY_S = 90.0


class ReplicaProcess:
    """A replica in a process of its own, which reaches the controller through a proxy.

    Attributes:
        told: What it said so far.
        proxy: Its network.
    """

    def __init__(self, replica_id: str, controller: ControllerProcess) -> None:
        self.told = Told()
        self.proxy = Proxy(controller.port)
        job = {
            "endpoint": f"127.0.0.1:{self.proxy.port}",
            "token": controller.token,
            "replica_id": replica_id,
            "pool_slots": POOL_SLOTS,
            "tenant_ids": list(LIMITS),
        }
        command = [sys.executable, "-m", "reasonserve.bench.control.replica", json.dumps(job)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.told.events.append(json.loads(line))

    def jump(self, seconds: float) -> None:
        """Moves its wall clock."""
        self._tell(f"jump {seconds}")

    def crowd(self, tenant_id: str, count: int) -> None:
        """Makes it so many more clients of a tenant than at the start, so that it wants slots that lie elsewhere."""
        self._tell(f"crowd {tenant_id} {count}")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def pause(self) -> None:
        """Stops it as a frozen virtual machine would."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends it at once; safe to call twice."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
            self.told.ended_at = min(self.told.ended_at, time.monotonic())
        self._reader.join(timeout=30)

    def close(self) -> None:
        """Ends it and its proxy."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self.proxy.close()


@dataclass(slots=True)
class Cluster:
    """What a scenario acts on.

    Attributes:
        controller: The controller.
        admin: Calls it; reconnects when it is back.
        replicas: The replicas.
        lease_ttl_s: Lease period.
    """

    controller: ControllerProcess
    admin: AdminClient
    replicas: list[ReplicaProcess]
    lease_ttl_s: float

    @property
    def told(self) -> list[Told]:
        """What all replicas said."""
        return [replica.told for replica in self.replicas]

    def is_whole(self) -> bool:
        """Returns whether every tenant is leased nine tenths of its limit now; the rest may be on its way."""
        now = time.monotonic()
        return all(10 * total(self.told, t, now) >= 9 * limit for t, limit in LIMITS.items())

    def create_tenant(self, tenant_id: str, *, guaranteed: int = 0, limit: int = 0) -> None:
        """Creates a tenant; raises `grpc.RpcError`."""
        tenant = make_tenant(tenant_id, guaranteed=guaranteed, limit=limit)
        self.admin.call(self.admin.services.tenants.CreateTenant, pb.CreateTenantRequest(tenant=tenant), timeout_s=20)

    def tenant_ids(self) -> set[str]:
        """Returns the ids of all stored tenants."""
        listed: pb.ListTenantsResponse = self.admin.call(
            self.admin.services.tenants.ListTenants, pb.ListTenantsRequest()
        )
        return {tenant.tenant_id for tenant in listed.tenants}


def make_tenant(tenant_id: str, *, guaranteed: int = 0, limit: int = 0) -> pb.Tenant:
    """Returns a tenant with some request budget."""
    budget = pb.RequestBudget(min_tokens=32, default_tokens=64, max_tokens=128)
    return pb.Tenant(tenant_id=tenant_id, guaranteed_slots=guaranteed, limit_slots=limit, request_budget=budget)


@contextmanager
def running(folder: Path, *, replicas: int, lease_ttl_s: float) -> Iterator[Cluster]:
    """Starts a cluster and yields it once every replica serves and every tenant has all of its limit."""
    controller = ControllerProcess(folder, lease_ttl_s=lease_ttl_s)
    controller.start()
    cluster = Cluster(controller, AdminClient(controller), [], lease_ttl_s)
    try:
        for tenant_id, limit in LIMITS.items():
            cluster.create_tenant(tenant_id, guaranteed=GUARANTEES[tenant_id], limit=limit)
        for n in range(replicas):
            cluster.replicas.append(ReplicaProcess(f"r{n}", controller))
        if not wait_until(lambda: _serves(cluster), _READY_S):
            raise RuntimeError("The replicas do not serve.")
        yield cluster
    finally:
        for replica in cluster.replicas:
            replica.close()
        cluster.admin.close()
        controller.end()


def _serves(cluster: Cluster) -> bool:
    return all(told.count("done") > 5 for told in cluster.told) and cluster.is_whole()


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Returns whether a condition came true in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def refusal(call: Callable[[], object]) -> grpc.RpcError | None:
    """Returns how a call failed; None where it did not."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    return None
