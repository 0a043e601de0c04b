"""The Ray Serve application: a gateway in front of the replicas. Pure: nothing is started here."""

from __future__ import annotations

import warnings
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.config import (
    AutoscalingConfig,
    AutoscalingPolicy,
    ProxyLocation,
    RequestRouterConfig,
    gRPCOptions,
)
from ray.serve.schema import LoggingConfig

from reasonserve.config import ReplicaConfig, RoutingConfig, ServiceConfig
from reasonserve.gateway.deployment import MAX_CALLS, Gateway
from reasonserve.replica.deployment import Replica

PREFIX_AFFINITY_ROUTER = "reasonserve.replica.router:PrefixAffinityRouter"
KV_PRESSURE_POLICY = "reasonserve.replica.scaling:KvPressurePolicy"
SERVICER_FUNCTION = "reasonserve.gateway.proxy.add_generation_service"
GATEWAY_CPUS = 0.1
"""The gateway waits most of the time; a whole core would keep a replica off a small machine."""
ROUTING_STATS_S = 1.0
"""How often replicas tell the router what their leases have free; between, the router counts what it sends."""


class Arguments(BaseModel):
    """What a Ray Serve configuration file passes to `from_arguments`; closed.

    Attributes:
        config: The cluster's configuration.
        controller_endpoint: ``host:port`` of the controller.
        admin_token_file: File that holds the admin token, readable on every node.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: ServiceConfig
    controller_endpoint: str
    admin_token_file: str


def from_arguments(arguments: dict[str, Any]) -> serve.Application:
    """Builds the application that a Ray Serve configuration file names; each node finds the model itself.

    Raises:
        pydantic.ValidationError: A key is unknown, missing or out of range.
    """
    checked = Arguments.model_validate(arguments)
    return build_app(
        checked.config,
        controller_endpoint=checked.controller_endpoint,
        admin_token_file=checked.admin_token_file,
        model_path=None,
    )


def build_app(
    config: ServiceConfig,
    *,
    controller_endpoint: str,
    admin_token_file: str,
    model_path: str | None,
    engine_factory: str = "reasonserve.replica.sglang_engine:create",
) -> serve.Application:
    """Wires gateway and replicas.

    Args:
        config: The cluster's configuration.
        controller_endpoint: ``host:port`` of the controller.
        admin_token_file: File that holds the admin token, readable on every node.
        model_path: Folder of the model, on every node; None lets each replica find the configured model.
        engine_factory: ``module:function`` that makes an ``Engine`` of configuration, model folder and profile.
    """
    # Each request has a line of our own, with its outcome and figures.
    logging = LoggingConfig(enable_access_log=False)
    replica = serve.deployment(
        logging_config=logging,
        **_count_options(config.replicas),
        request_router_config=_router_config(config.replicas.routing),
        max_ongoing_requests=config.replicas.max_ongoing_requests,
        ray_actor_options={"num_cpus": config.replicas.num_cpus, "num_gpus": config.replicas.num_gpus},
        health_check_period_s=2.0,
        health_check_timeout_s=30.0,
        graceful_shutdown_timeout_s=config.replicas.drain_s,
    )(Replica).bind(
        config,
        controller_endpoint=controller_endpoint,
        admin_token_file=admin_token_file,
        model_path=model_path,
        engine_factory=engine_factory,
    )
    return serve.deployment(
        logging_config=logging,
        max_ongoing_requests=MAX_CALLS,
        ray_actor_options={"num_cpus": GATEWAY_CPUS},
        graceful_shutdown_timeout_s=config.replicas.drain_s,
    )(Gateway).bind(config, replica, controller_endpoint=controller_endpoint, admin_token_file=admin_token_file)


def _count_options(replicas: ReplicaConfig) -> dict[str, Any]:
    """Returns how many replicas there are: a number, or Ray Serve's autoscaling by KV pressure."""
    scaling = replicas.scaling
    if scaling.max_count is None:
        return {"num_replicas": replicas.count}
    policy = AutoscalingPolicy(
        policy_function=KV_PRESSURE_POLICY, policy_kwargs={"target_pressure": scaling.target_pressure}
    )
    with warnings.catch_warnings():
        # Ray Serve 2.60 warns that a variable is to replace this field, and reads the field alone.
        warnings.filterwarnings("ignore", message=".*metrics_interval_s", category=DeprecationWarning)
        return {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=replicas.count,
                max_replicas=scaling.max_count,
                policy=policy,
                metrics_interval_s=scaling.interval_s,
                look_back_period_s=scaling.window_s,
                upscale_delay_s=scaling.upscale_delay_s,
                downscale_delay_s=scaling.downscale_delay_s,
            )
        }


def _router_config(routing: RoutingConfig) -> RequestRouterConfig:
    """Returns how Ray Serve's handles choose a replica."""
    if routing.policy == "power-of-two":
        return RequestRouterConfig(request_routing_stats_period_s=ROUTING_STATS_S)
    return RequestRouterConfig(
        request_router_class=PREFIX_AFFINITY_ROUTER,
        request_router_kwargs={"imbalance": routing.imbalance},
        request_routing_stats_period_s=ROUTING_STATS_S,
    )


def serve_options(config: ServiceConfig) -> dict[str, Any]:
    """Returns the arguments of ``serve.start``: HTTP for clients and probes, gRPC where the gateway does not listen."""
    options: dict[str, Any] = {
        "proxy_location": ProxyLocation.EveryNode,
        "http_options": {"host": "127.0.0.1", "port": config.gateway.http_port},
    }
    if config.gateway.entrance == "proxy":
        options["grpc_options"] = gRPCOptions(port=config.gateway.port, grpc_servicer_functions=[SERVICER_FUNCTION])
    return options
