"""``up``, ``down`` and ``status``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from reasonserve.api.v1 import cluster_service_pb2 as pb
from reasonserve.cli import client, options
from reasonserve.cli.output import err, out, print_json, slots_and_mib, table
from reasonserve.config import ServiceConfig
from reasonserve.models.progress import on_console
from reasonserve.stack import control
from reasonserve.stack.paths import StatePaths
from reasonserve.stack.state import StackState

PHASES = {
    "ray": "Starting Ray, Ray Serve and the controller",
    "controller": "Waiting for the controller",
    "model": "Preparing the model",
    "engine": "Starting the engine",
}

EngineFactory = Annotated[str | None, typer.Option("--engine-factory", hidden=True)]


def up(
    config: options.ConfigFile = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Built-in name, Hugging Face id or local folder.")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="PEM certificate: opens the TLS front to other machines. Default: no front.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM private key of the certificate.")] = None,
    client_ca: Annotated[
        Path | None, typer.Option(help="Clients must present a certificate that one of these signed (mTLS).")
    ] = None,
    state_dir: options.StateDir = None,
    engine_factory: EngineFactory = None,
) -> None:
    """Start a cluster on this machine; returns when it serves.

    The controller, Ray Serve and the engine run in the background until `reasonserve down`. They listen on 127.0.0.1
    alone; other machines reach the TLS front, where there is one.
    """
    paths = StatePaths.resolve(state_dir)
    asked = with_front(load(config, model), tls_cert=tls_cert, tls_key=tls_key, client_ca=client_ca)
    state = bring_up(asked, paths, engine_factory=engine_factory)
    out.print(f"[bold green]Ready.[/] gRPC at {state.gateway_endpoint}, serving {state.model}.")
    if state.front_endpoint:
        out.print(f"Other machines: TLS at {state.front_endpoint}, gRPC and HTTP.")
    out.print(
        "Next:\n"
        "  reasonserve tenant create team-a        # prints a key\n"
        "  export REASONSERVE_API_KEY=KEY\n"
        "  reasonserve generate 'Why is the sky blue?'\n"
        "  reasonserve status"
    )


def down(state_dir: options.StateDir = None) -> None:
    """Stop the cluster that runs here. Tenants, keys and profiles are kept."""
    paths = StatePaths.resolve(state_dir)
    with err.status("Stopping"):
        stopped = control.stop(paths)
    out.print("Stopped." if stopped else f"Nothing runs from {paths.root}.")


def status(
    controller: options.Controller = None,
    admin_token: options.AdminToken = None,
    state_dir: options.StateDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show replicas and tenants: capacity, leases and use, in token slots and MiB."""
    with client.admin(controller, admin_token, state_dir) as admin:
        seen = admin.call(admin.services.cluster.GetClusterStatus, pb.GetClusterStatusRequest())
    if as_json:
        print_json(seen)
        return
    local = control.running(StatePaths.resolve(state_dir))
    if local is not None and controller is None:
        message = f": {local.message}" if local.message else ""
        out.print(f"{local.phase}{message}, gateway {local.gateway_endpoint}, model {local.model}")
    show(seen)


def load(config: Path | None, model: str | None) -> ServiceConfig:
    """Returns the configuration of a file, or the built-in one, with the model replaced if one is named."""
    loaded = ServiceConfig.from_file(config) if config else ServiceConfig()
    return loaded.model_copy(update={"model": model}) if model else loaded


def with_front(config: ServiceConfig, **files: Path | None) -> ServiceConfig:
    """Returns the configuration with the front's files replaced where one is named."""
    named = {name: file for name, file in files.items() if file is not None}
    if not named:
        return config
    data = config.model_dump()
    return ServiceConfig.from_mapping(data | {"front": data["front"] | named})


def bring_up(
    config: ServiceConfig, paths: StatePaths, *, engine_factory: str | None = None, owned: bool = False
) -> StackState:
    """Starts a stack and shows each phase as it is entered."""
    with on_console(err) as progress:
        return control.start(config, paths, on_change=_reporter(progress), engine_factory=engine_factory, owned=owned)


def _reporter(progress: Callable[[str], None]) -> control.Watcher:
    told = ""

    def report(state: StackState) -> None:
        nonlocal told
        if state.phase not in PHASES:
            return
        line = PHASES[state.phase] + (f": {state.message}" if state.message else "")
        if line != told:
            told = line
            progress(line)

    return report


def show(seen: pb.GetClusterStatusResponse) -> None:
    """Prints a cluster's replicas and tenants as tables."""
    replicas = table("replica", "model", "capacity", "reserved", "used", "requests", "profile", title="Replicas")
    for replica in seen.replicas:
        sized = [
            slots_and_mib(slots, replica.bytes_per_slot)
            for slots in (replica.capacity_slots, replica.reserved_slots, replica.used_slots)
        ]
        replicas.add_row(
            replica.replica_id, replica.model, *sized, str(replica.active_requests), replica.profile_id or "none"
        )
    out.print(replicas)
    bytes_per_slot = seen.replicas[0].bytes_per_slot if seen.replicas else 0
    tenants = table("tenant", "reserved", "leased", "guaranteed", "limit", "requests", "refused", title="Tenants")
    for tenant in seen.tenants:
        held = (tenant.reserved_slots, tenant.leased_slots, tenant.guaranteed_slots, tenant.limit_slots)
        sized = [slots_and_mib(slots, bytes_per_slot) for slots in held]
        tenants.add_row(tenant.tenant_id, *sized, str(tenant.active_requests), str(tenant.refused_requests))
    out.print(tenants)
