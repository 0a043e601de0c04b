"""The controller process: ``python -m reasonserve.controller``."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated

import typer

from reasonserve.controller.process import LeadershipLostError, Options, serve
from reasonserve.controller.tls import TlsFiles
from reasonserve.errors import StartupError
from reasonserve.telemetry.logs import set_up_logging
from reasonserve.telemetry.settings import TelemetrySettings

_LOG = logging.getLogger(__name__)

DatabaseUrl = Annotated[
    str,
    typer.Option(
        envvar="REASONSERVE_DATABASE_URL",
        help="sqlite:///FILE or postgresql://USER@HOST/DATABASE. A password belongs into the environment.",
    ),
]
OperatorTokenFile = Annotated[
    Path | None, typer.Option(help="Token that may read and not write; made as the other. Default: no such token.")
]
ClientCaFile = Annotated[
    Path | None, typer.Option(help="Clients must present a certificate that one of these signed (mTLS).")
]
CapacitySlots = Annotated[
    int, typer.Option(min=0, help="Capacity that guarantees are checked against; 0 takes the live replicas'.")
]


MetricsPort = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="Prometheus page at this port of --host. Default: no page."),
]


def run(
    database_url: DatabaseUrl,
    admin_token_file: Annotated[Path, typer.Option(help="Made with mode 0600 where there is none.")],
    operator_token_file: OperatorTokenFile = None,
    tls_cert_file: Annotated[Path | None, typer.Option(help="PEM certificate. Default: plain text.")] = None,
    tls_key_file: Annotated[Path | None, typer.Option(help="PEM private key of the certificate.")] = None,
    tls_client_ca_file: ClientCaFile = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="gRPC port; 0 takes a free one.")] = 9100,
    lease_ttl_s: Annotated[float, typer.Option(min=1, max=300, help="A lease lapses this long after a report.")] = 10.0,
    capacity_slots: CapacitySlots = 0,
    metrics_port: MetricsPort = None,
) -> None:
    """Keeps tenants, budgets, keys and profiles, and leases KV memory to replicas."""
    set_up_logging("controller")
    options = Options(
        host=host,
        port=port,
        database_url=database_url,
        admin_token_file=admin_token_file,
        operator_token_file=operator_token_file,
        tls=TlsFiles(cert=tls_cert_file, key=tls_key_file, client_ca=tls_client_ca_file),
        lease_ttl_s=lease_ttl_s,
        capacity_slots=capacity_slots,
        metrics_port=metrics_port,
        max_tenant_labels=TelemetrySettings().max_tenant_labels,
    )
    try:
        asyncio.run(serve(options))
    except StartupError as error:
        _LOG.error("%s", error.message)
        raise typer.Exit(code=2) from None
    except LeadershipLostError:
        _LOG.error("Another controller may lead now: this process ends and, restarted, stands by.")
        raise typer.Exit(code=3) from None


def main() -> None:
    """Runs the command line."""
    typer.run(run)
