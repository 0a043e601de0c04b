"""A local stack of its own for a benchmark, started and ended by the command line."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonserve.api.v1 import cluster_service_pb2 as cluster_pb
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.bench.job import JobFailedError
from reasonserve.cli import client
from reasonserve.errors import UnavailableError
from reasonserve.stack.paths import StatePaths
from reasonserve.stack.state import StackState
from reasonserve.telemetry import names

Span = Mapping[str, Any]
"""See ``telemetry.file_exporter.span_record``."""

START_S, LEASED_S = 900.0, 60.0


@dataclass(frozen=True)
class LocalStack:
    """A running stack.

    Attributes:
        state_dir: Where its state lies.
        endpoint: The gateway's ``host:port``.
    """

    state_dir: Path
    endpoint: str

    @property
    def state(self) -> StackState:
        """What runs now.

        Raises:
            JobFailedError: Nothing does.
        """
        state = StackState.read(StatePaths(self.state_dir).state_file)
        if state is None:
            raise JobFailedError("The stack has ended.")
        return state

    @property
    def spans(self) -> list[dict[str, Any]]:
        """Every span so far."""
        lines = StatePaths(self.state_dir).trace_file.read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def log(self) -> list[str]:
        """What the supervisor and the controller said so far, without what Ray relays of its workers."""
        lines = StatePaths(self.state_dir).host_log.read_text(errors="replace").splitlines()
        return [line for line in lines if line and not line.startswith(("(", "\x1b["))]

    def create_tenant(self, tenant: tenant_pb.Tenant) -> str:
        """Creates a tenant with a key; returns the key once every replica's lease names the tenant."""
        with client.admin(None, None, self.state_dir) as admin:
            admin.call(admin.services.tenants.CreateTenant, tenant_pb.CreateTenantRequest(tenant=tenant))
            key = tenant_pb.CreateTenantKeyRequest(tenant_id=tenant.tenant_id)
            return str(admin.call(admin.services.tenants.CreateTenantKey, key).key)

    def wait_for_replicas(self, count: int) -> None:
        """Returns when so many replicas hold a lease.

        Raises:
            JobFailedError: They do not within a minute.
        """
        deadline = time.monotonic() + LEASED_S
        while time.monotonic() < deadline:
            try:
                with client.admin(None, None, self.state_dir) as admin:
                    request = cluster_pb.GetClusterStatusRequest()
                    status = admin.call(admin.services.cluster.GetClusterStatus, request)
                if len(status.replicas) >= count:
                    return
            except UnavailableError:
                pass
            time.sleep(0.5)
        raise JobFailedError(f"{count} replicas did not get a lease within {LEASED_S:.0f} s.")


@contextmanager
def local_stack(
    config: dict[str, Any], *, engine_factory: str = "", environment: Mapping[str, str] | None = None
) -> Iterator[LocalStack]:
    """Runs a stack under a configuration, on free ports, in a state directory of its own.

    Args:
        config: Its configuration; ports are chosen here.
        engine_factory: ``module:function`` of another engine than SGLang.
        environment: Variables of its processes, on top of this one's.

    Raises:
        JobFailedError: It did not start; the message is what the command line said.
    """
    gateway, http, controller = _free_ports(3)
    sections = {"gateway": {"port": gateway, "http_port": http}, "controller": {"port": controller}}
    with tempfile.TemporaryDirectory() as folder:
        state_dir, file = Path(folder) / "state", Path(folder) / "config.yaml"
        merged = {name: ports | config.get(name, {}) for name, ports in sections.items()}
        file.write_text(json.dumps(config | merged))
        variables = {**os.environ, **(environment or {}), "REASONSERVE_STATE": str(state_dir)}
        factory = ["--engine-factory", engine_factory] if engine_factory else []
        command = [sys.executable, "-m", "reasonserve"]
        try:
            up = subprocess.run(
                [*command, "up", "--config", str(file), *factory],
                env=variables,
                capture_output=True,
                text=True,
                timeout=START_S,
                check=False,
            )
            if up.returncode != 0:
                raise JobFailedError(up.stderr[-4000:])
            yield LocalStack(state_dir, f"127.0.0.1:{gateway}")
        finally:
            subprocess.run([*command, "down"], env=variables, capture_output=True, timeout=START_S, check=False)


def handled_by(span: Span) -> str:
    """Returns the replica whose engine ran a request to the end, as the engine's span says; empty for other spans."""
    attributes = span["attributes"]
    return str(attributes.get(names.REPLICA_ID, "")) if names.OPERATION in attributes else ""


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
