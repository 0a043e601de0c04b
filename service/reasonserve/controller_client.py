"""What every caller of the controller needs: a channel and the admin token.

A controller with TLS is reached by naming PEM files in the environment of the calling process:
``REASONSERVE_CONTROLLER_TLS_CA_FILE``, and ``..._CERT_FILE`` with ``..._KEY_FILE`` where it asks for
a client's certificate.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import grpc
from pydantic_settings import BaseSettings, SettingsConfigDict

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


class ControllerTls(BaseSettings):
    """PEM files that a client trusts and presents; without a CA the connection is plain text."""

    model_config = SettingsConfigDict(env_prefix="REASONSERVE_CONTROLLER_TLS_", frozen=True)

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Returns what a channel is secured with; None for plain text.

        Raises:
            StartupError: A file cannot be read, or one is named without another that it needs.
        """
        if (self.cert_file is None) != (self.key_file is None) or (self.cert_file and not self.ca_file):
            raise StartupError(
                f"TLS needs {self.model_config['env_prefix']}CA_FILE, and a client's certificate needs both "
                "..._CERT_FILE and ..._KEY_FILE."
            )
        if self.ca_file is None:
            return None
        try:
            roots, *pair = [file.read_bytes() for file in (self.ca_file, self.key_file, self.cert_file) if file]
        except OSError as error:
            raise StartupError(
                f"Cannot read {error.filename}, named by {self.model_config['env_prefix']}...: {error.strerror}."
            ) from error
        return grpc.ssl_channel_credentials(roots, *pair)


def open_channel(endpoint: str) -> grpc.aio.Channel:
    """Opens an asyncio channel to ``host:port``; connects on first use. The caller closes it.

    Raises:
        StartupError: As `ControllerTls.credentials`.
    """
    credentials = ControllerTls().credentials()
    if credentials is None:
        return grpc.aio.insecure_channel(endpoint, options=CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(endpoint, credentials, options=CHANNEL_OPTIONS)


def open_blocking_channel(endpoint: str) -> grpc.Channel:
    """Opens a blocking channel to ``host:port``; connects on first use. The caller closes it.

    Raises:
        StartupError: As `ControllerTls.credentials`.
    """
    credentials = ControllerTls().credentials()
    if credentials is None:
        return grpc.insecure_channel(endpoint, options=CHANNEL_OPTIONS)
    return grpc.secure_channel(endpoint, credentials, options=CHANNEL_OPTIONS)


def stubs(channel: grpc.aio.Channel | grpc.Channel) -> Stubs:
    """Returns the controller's services on a channel."""
    # The generated stubs are untyped; the ignores name nothing else.
    return Stubs(
        tenants=tenant_grpc.TenantServiceStub(channel),  # type: ignore[no-untyped-call]
        profiles=profile_grpc.ProfileServiceStub(channel),  # type: ignore[no-untyped-call]
        cluster=cluster_grpc.ClusterServiceStub(channel),  # type: ignore[no-untyped-call]
        leases=lease_grpc.LeaseServiceStub(channel),  # type: ignore[no-untyped-call]
    )
