"""Keeps Ray's and Ray Serve's ports off the network on a machine that is a cluster of its own.

Ray binds what it opens to the node's address, and to every interface unless that address is loopback; on one machine
it can be. Ray Serve's gRPC servers bind every interface whatever the node's address, and have no setting for it: so
each of its processes turns that address into loopback's before it listens.
"""

from __future__ import annotations

from grpc.aio import _server as grpc_aio_server  # Ray Serve subclasses what is in here
from opentelemetry.sdk.trace import SpanProcessor

from reasonserve.telemetry import export

HOOK = "reasonserve.front.loopback:span_processors"
ENVIRONMENT = {
    # Ray's switch for machines where it may not open ports to the network; it makes 127.0.0.1 the node's address.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH": HOOK,
    # torch.distributed, which the engine sets up even for one process.
    "GLOO_SOCKET_IFNAME": "lo",
}
"""What every process of a local stack must have before Ray starts."""
WILDCARDS = ("[::]", "0.0.0.0")


def span_processors() -> list[SpanProcessor]:
    """Called by Ray Serve in each of its processes before they listen; see `export.span_processors`."""
    bind_to_loopback()
    return export.span_processors()


def bind_to_loopback() -> None:
    """Has every asynchronous gRPC server that this process makes bind loopback where it would bind everything."""
    add = grpc_aio_server.Server.add_insecure_port

    def add_insecure_port(server: grpc_aio_server.Server, address: str) -> int:
        return int(add(server, loopback(address)))

    setattr(grpc_aio_server.Server, "add_insecure_port", add_insecure_port)  # noqa: B010  mypy types no assignment to a method


def loopback(address: str) -> str:
    """Returns an address with every interface replaced by loopback's; others as they are."""
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host in WILDCARDS else address
