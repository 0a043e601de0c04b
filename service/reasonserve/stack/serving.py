"""Ray and Ray Serve on this machine, for one stack."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from reasonserve.config import GatewayConfig, ServiceConfig
from reasonserve.errors import StartupError
from reasonserve.front import loopback
from reasonserve.telemetry.settings import node_environment

OBJECT_STORE_BYTES = 200 << 20
"""Requests and tokens are small; Ray's default takes a third of the machine's memory."""
SPARE_CPUS = 1.0
"""For the gateway, on top of the replicas' cores."""
APPLICATION = "reasonserve"
TRANSPORT = "RAY_SERVE_USE_GRPC_BY_DEFAULT"
"""Whether Ray Serve's processes call each other over gRPC: less time and processor time a call than actor calls."""
ONE_LOOP = ("RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP", "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD")
"""Whether Ray Serve keeps its own event loops apart from ours, each on a thread: each change of thread waits for the
interpreter's lock, on both ways of each message."""


def environment(config: ServiceConfig, trace_file: Path) -> dict[str, str]:
    """Returns the variables that every process of the stack must have before Ray starts."""
    telemetry = config.telemetry.model_copy(update={"trace_file": config.telemetry.trace_file or trace_file})
    return (
        node_environment(telemetry)
        | message_limit(config.gateway)
        | loopback.ENVIRONMENT
        | {
            TRANSPORT: os.environ.get(TRANSPORT, "1"),
            **{name: os.environ.get(name, "0") for name in ONE_LOOP},
            "RAY_USAGE_STATS_ENABLED": "0",
            # Idle OpenMP threads must sleep: spinning starves the other processes on a small machine.
            "OMP_WAIT_POLICY": "PASSIVE",
            "GOMP_SPINCOUNT": "0",
        }
    )


def message_limit(gateway: GatewayConfig) -> dict[str, str]:
    """Returns the variable that has Ray Serve's proxy drop messages that the gateway would refuse anyhow."""
    return {"RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(gateway.max_message_bytes)}


def start(config: ServiceConfig) -> None:
    """Starts Ray and Ray Serve with its gRPC proxy.

    Call it on the main thread, with `environment` applied: Ray's processes end with the thread
    that started them, and Serve reads its variables when it is imported.
    """
    import ray
    from ray import serve

    from reasonserve.app import serve_options

    ray.init(
        address="local",
        num_cpus=config.replicas.most * config.replicas.num_cpus + SPARE_CPUS,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.WARNING,
        _metrics_export_port=config.telemetry.metrics_port,
    )
    serve.start(**serve_options(config))


def deploy(config: ServiceConfig, *, admin_token_file: Path, model_path: Path, engine_factory: str) -> None:
    """Deploys the gateway and its replicas; returns when they serve.

    Raises:
        StartupError: A replica did not start; says the engine's own reason.
    """
    from ray import serve

    from reasonserve.app import build_app

    application = build_app(
        config,
        controller_endpoint=config.controller.endpoint,
        admin_token_file=str(admin_token_file),
        model_path=str(model_path),
        engine_factory=engine_factory,
    )
    try:
        serve.run(application, name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        raise StartupError(f"The engine did not start: {deployment_reason(_message())}") from error


def _message() -> str:
    """Returns what Ray Serve says of the application and its deployments."""
    from ray import serve

    overview = serve.status().applications[APPLICATION]
    return "\n".join([overview.message, *(d.message for d in overview.deployments.values())])


def deployment_reason(message: str) -> str:
    """Returns the line of a Ray Serve status message that names the error, without its traceback."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if line.split(":")[0].rpartition(".")[2].endswith(("Error", "Exception"))]
    return (errors or lines or ["no reason was given"])[-1]


def stop() -> None:
    """Ends Serve, then Ray."""
    import ray
    from ray import serve

    if ray.is_initialized():
        serve.shutdown()
        ray.shutdown()
