"""``front``: the TLS front's configuration."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from reasonserve.cli import options
from reasonserve.cli.output import out
from reasonserve.cli.stack import load
from reasonserve.errors import InvalidRequestError
from reasonserve.front.haproxy import Front, render
from reasonserve.front.process import front_of

app = typer.Typer(no_args_is_help=True, help="The TLS front: what clients reach from other machines.")


@app.callback()
def group() -> None:
    """The TLS front: what clients reach from other machines."""


@app.command(epilog="Example: reasonserve front config --grpc-server serve:9000 --http-server serve:8000")
def config(
    file: options.ConfigFile = None,
    bind: Annotated[str | None, typer.Option(help="host:port for clients. Default: the configuration's.")] = None,
    certificate: Annotated[
        str, typer.Option(help="PEM file with certificate and key, or a .crt whose key lies beside it as .key.")
    ] = "/etc/reasonserve/tls/tls.crt",
    client_ca: Annotated[
        str | None, typer.Option(help="PEM file; ask clients for certificates that it signed (mTLS).")
    ] = None,
    grpc_server: Annotated[str | None, typer.Option(help="host:port of Ray Serve's gRPC proxy.")] = None,
    http_server: Annotated[str | None, typer.Option(help="host:port of Ray Serve's HTTP proxy.")] = None,
    health_bind: Annotated[str | None, typer.Option(help="host:port of a plain page /healthz.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Print the HAProxy configuration of the front, for a cluster that runs its own HAProxy.

    `reasonserve up --tls-cert ... --tls-key ...` runs a front with this very text.
    """
    given = {
        "bind": bind,
        "client_ca": client_ca,
        "grpc_server": grpc_server,
        "http_server": http_server,
        "health_bind": health_bind,
    }
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    front: Front = replace(front_of(load(file, None), certificate=certificate), **chosen)
    try:
        text = render(front)
    except ValueError as error:
        raise InvalidRequestError(f"{error}.") from error
    if as_json:
        out.print_json(data={"front": asdict(front), "haproxy_cfg": text})
    else:
        out.print(text, end="", markup=False, highlight=False, soft_wrap=True)
