"""What every caller of the controller needs: a channel and the admin token."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import grpc

from reasonserve.api.v1 import cluster_service_pb2_grpc as cluster_grpc
from reasonserve.api.v1 import lease_service_pb2_grpc as lease_grpc
from reasonserve.api.v1 import profile_service_pb2_grpc as profile_grpc
from reasonserve.api.v1 import tenant_service_pb2_grpc as tenant_grpc
from reasonserve.errors import StartupError

# Keepalive finds a dead controller within 15 s; the controller's server permits this pace.
CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", 64 << 20),
)


class Stubs(NamedTuple):
    """The controller's services on one channel; their methods are awaitable on an aio channel."""

    tenants: tenant_grpc.TenantServiceStub
    profiles: profile_grpc.ProfileServiceStub
    cluster: cluster_grpc.ClusterServiceStub
    leases: lease_grpc.LeaseServiceStub


def admin_metadata(token: str) -> tuple[tuple[str, str], ...]:
    """Returns the call metadata that presents the admin token."""
    return (("authorization", f"Bearer {token}"),)


def read_admin_token(path: Path) -> str:
    """Reads the token that the controller wrote at its first start.

    Raises:
        StartupError: There is no readable token in the file.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(
            f"Cannot read the admin token in {path}: start the controller once, or name its token file."
        ) from error
    if not token:
        raise StartupError(f"The admin token file {path} is empty: delete it and restart the controller.")
    return token


def open_channel(endpoint: str) -> grpc.aio.Channel:
    """Opens an asyncio channel to ``host:port``; connects on first use. The caller closes it."""
    return grpc.aio.insecure_channel(endpoint, options=CHANNEL_OPTIONS)


def open_blocking_channel(endpoint: str) -> grpc.Channel:
    """Opens a blocking channel to ``host:port``; connects on first use. The caller closes it."""
    return grpc.insecure_channel(endpoint, options=CHANNEL_OPTIONS)


def stubs(channel: grpc.aio.Channel | grpc.Channel) -> Stubs:
    """Returns the controller's services on a channel."""
    # The generated stubs are untyped; the ignores name nothing else.
    return Stubs(
        tenants=tenant_grpc.TenantServiceStub(channel),  # type: ignore[no-untyped-call]
        profiles=profile_grpc.ProfileServiceStub(channel),  # type: ignore[no-untyped-call]
        cluster=cluster_grpc.ClusterServiceStub(channel),  # type: ignore[no-untyped-call]
        leases=lease_grpc.LeaseServiceStub(channel),  # type: ignore[no-untyped-call]
    )
