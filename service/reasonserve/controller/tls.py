"""TLS of the controller's port: the server's certificate, and whose clients it takes."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from reasonserve.errors import StartupError


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files; all None means plain text.

    Attributes:
        cert: The server's certificate and its chain.
        key: Its private key.
        client_ca: Clients must present a certificate signed by one of these; None asks for none.
    """

    cert: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials | None:
    """Returns what the port is secured with; None for plain text.

    Raises:
        StartupError: A file is missing, unreadable or not what it should be. gRPC itself would start
            and fail every handshake.
    """
    if files.cert is None and files.key is None and files.client_ca is None:
        return None
    if files.cert is None or files.key is None:
        raise StartupError(
            "TLS needs both --tls-cert-file and --tls-key-file; --tls-client-ca-file asks for clients' "
            "certificates on top."
        )
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.cert, files.key)
        if files.client_ca is not None:
            context.load_verify_locations(files.client_ca)
        pair = (files.key.read_bytes(), files.cert.read_bytes())
        roots = files.client_ca.read_bytes() if files.client_ca else None
    except (OSError, ssl.SSLError) as error:
        raise StartupError(
            f"The TLS files cannot be used ({error.strerror or type(error).__name__}): --tls-cert-file must hold a "
            "PEM certificate, --tls-key-file its private key, --tls-client-ca-file PEM certificates."
        ) from error
    return grpc.ssl_server_credentials([pair], root_certificates=roots, require_client_auth=roots is not None)
