"""The front of a cluster: ``python -m reasonserve.node.front`` becomes HAProxy with the front's configuration."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from reasonserve.config import ServiceConfig
from reasonserve.errors import StartupError
from reasonserve.front.haproxy import Front, render
from reasonserve.front.process import check, haproxy_binary

_LOG = logging.getLogger(__name__)

ConfigFile = Annotated[Path, typer.Option("--config", help="YAML file of the cluster's configuration.")]
Certificate = Annotated[str, typer.Option(help="PEM file of the server; its key lies beside it as .key.")]
ClientCa = Annotated[str, typer.Option(help="PEM file; clients present a certificate that one of these signed.")]
GrpcServer = Annotated[str, typer.Option(help="host:port of Ray Serve's gRPC proxies.")]
HttpServer = Annotated[str, typer.Option(help="host:port of Ray Serve's HTTP proxies.")]
HealthPort = Annotated[int, typer.Option(help="Port of the plain page /healthz.")]


def front(
    config: ConfigFile,
    certificate: Certificate,
    client_ca: ClientCa,
    grpc_server: GrpcServer,
    http_server: HttpServer,
    health_port: HealthPort,
) -> None:
    """Writes HAProxy's configuration, checks it and becomes HAProxy."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    try:
        service = ServiceConfig.from_file(config)
        wanted = Front(
            bind=f":{service.front.port}",
            certificate=certificate,
            client_ca=client_ca,
            grpc_server=grpc_server,
            http_server=http_server,
            health_bind=f":{health_port}",
            max_bytes=service.gateway.max_input_bytes,
            max_connections=service.front.max_connections,
        )
        file = Path(tempfile.mkdtemp(prefix="front-")) / "haproxy.cfg"
        file.write_text(render(wanted))
        binary = haproxy_binary()
        check(binary, file)
    except (StartupError, ValueError) as error:
        _LOG.error("%s", error)
        raise typer.Exit(code=2) from None
    os.execv(binary, [binary, "-db", "-f", str(file)])


if __name__ == "__main__":
    typer.run(front)
