"""The controller process: ``python -m reasonserve.controller``."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import grpc
import typer
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from reasonserve.api.v1 import cluster_service_pb2 as cluster_pb
from reasonserve.api.v1 import cluster_service_pb2_grpc as cluster_grpc
from reasonserve.api.v1 import lease_service_pb2 as lease_pb
from reasonserve.api.v1 import lease_service_pb2_grpc as lease_grpc
from reasonserve.api.v1 import profile_service_pb2 as profile_pb
from reasonserve.api.v1 import profile_service_pb2_grpc as profile_grpc
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.api.v1 import tenant_service_pb2_grpc as tenant_grpc
from reasonserve.controller.auth import AdminInterceptor, ensure_admin_token
from reasonserve.controller.cluster_servicer import ClusterServicer
from reasonserve.controller.core import Controller
from reasonserve.controller.lease_servicer import LeaseServicer
from reasonserve.controller.profile_servicer import ProfileServicer
from reasonserve.controller.servicer import TenantServicer
from reasonserve.controller.store import Store
from reasonserve.errors import StartupError

_LOG = logging.getLogger(__name__)
_GRACE_S = 2.0
_SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (tenant_pb, "TenantService"),
        (profile_pb, "ProfileService"),
        (cluster_pb, "ClusterService"),
        (lease_pb, "LeaseService"),
    )
)
_SERVER_OPTIONS = (
    # Without this a second controller would bind the same port and take half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run; see the command's help."""

    host: str
    port: int
    database_url: str
    admin_token_file: Path
    lease_ttl_s: float
    capacity_slots: int


class OneLine(logging.Formatter):
    """A record is one line, whatever its message or traceback holds."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats a record and folds its lines."""
        return " | ".join(line.strip() for line in super().format(record).splitlines() if line.strip())


def build_server(controller: Controller, token: str) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    """Returns a server with all services, not yet bound or started, and its health."""
    server = grpc.aio.server(interceptors=[AdminInterceptor(token)], options=_SERVER_OPTIONS)
    # The generated functions are untyped; the ignores name nothing else.
    tenant_grpc.add_TenantServiceServicer_to_server(TenantServicer(controller), server)  # type: ignore[no-untyped-call]
    profile_grpc.add_ProfileServiceServicer_to_server(ProfileServicer(controller), server)  # type: ignore[no-untyped-call]
    cluster_grpc.add_ClusterServiceServicer_to_server(ClusterServicer(controller), server)  # type: ignore[no-untyped-call]
    lease_grpc.add_LeaseServiceServicer_to_server(LeaseServicer(controller), server)  # type: ignore[no-untyped-call]
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = (*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return server, health_servicer


async def serve(options: Options) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        StartupError: The database, the token file or the port cannot be used.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    token = ensure_admin_token(options.admin_token_file)
    store = Store(options.database_url)
    try:
        controller = Controller(store, lease_ttl_s=options.lease_ttl_s, declared_slots=options.capacity_slots)
        await _serve(options, controller, token, stop)
    finally:
        store.close()


async def _serve(options: Options, controller: Controller, token: str, stop: asyncio.Event) -> None:
    server, health_servicer = build_server(controller, token)
    port = _bind(server, options)
    await server.start()
    expiry = asyncio.create_task(controller.expire_forever())
    for name in ("", *_SERVICES):
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    state = controller.ledger.state
    _LOG.info(
        "Listening on %s:%d with %d tenants at revision %d.", options.host, port, len(state.tenants), state.revision
    )
    await stop.wait()
    _LOG.info("Shutting down.")
    await health_servicer.enter_graceful_shutdown()
    controller.close()
    await server.stop(_GRACE_S)
    expiry.cancel()
    with suppress(asyncio.CancelledError):
        await expiry


def _bind(server: grpc.aio.Server, options: Options) -> int:
    try:
        return server.add_insecure_port(f"{options.host}:{options.port}")
    except RuntimeError as error:
        raise StartupError(
            f"Cannot listen on {options.host}:{options.port}: the port is taken or the address is not this "
            "machine's; stop the other process or choose another --port or --host."
        ) from error


def run(
    database_url: Annotated[str, typer.Option(help="SQLAlchemy URL, such as sqlite:///controller.db.")],
    admin_token_file: Annotated[Path, typer.Option(help="Made with mode 0600 where there is none.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="gRPC port; 0 takes a free one.")] = 9100,
    lease_ttl_s: Annotated[float, typer.Option(min=1, max=300, help="A lease lapses this long after a report.")] = 10.0,
    capacity_slots: Annotated[
        int, typer.Option(min=0, help="Capacity that guarantees are checked against; 0 takes the live replicas'.")
    ] = 0,
) -> None:
    """Keeps tenants, budgets, keys and profiles, and leases KV memory to replicas."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    options = Options(
        host=host,
        port=port,
        database_url=database_url,
        admin_token_file=admin_token_file,
        lease_ttl_s=lease_ttl_s,
        capacity_slots=capacity_slots,
    )
    try:
        asyncio.run(serve(options))
    except StartupError as error:
        _LOG.error("%s", error.message)
        raise typer.Exit(code=2) from None


def main() -> None:
    """Runs the command line."""
    typer.run(run)
