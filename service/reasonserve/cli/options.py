"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir", envvar="REASONSERVE_STATE", help="Directory of the stack's state. Default: the user's."
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file of the configuration. Default: built-in values.")
]
Controller = Annotated[
    str | None,
    typer.Option(
        "--controller",
        envvar="REASONSERVE_CONTROLLER",
        help="host:port of the controller. Default: the running stack's, else 127.0.0.1:9100.",
    ),
]
AdminToken = Annotated[
    str | None,
    typer.Option(
        "--admin-token",
        envvar="REASONSERVE_ADMIN_TOKEN",
        show_envvar=True,
        help="The administrator's token. Default: the one in the state directory.",
    ),
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        envvar="REASONSERVE_ENDPOINT",
        help="host:port of the gateway. Default: the running stack's, else 127.0.0.1:9000.",
    ),
]
ApiKey = Annotated[str | None, typer.Option("--api-key", envvar="REASONSERVE_API_KEY", help="The tenant's key.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
