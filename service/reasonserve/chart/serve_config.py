"""Ray Serve's configuration as the chart writes it, closed: Ray Serve 2.60 passes over keys that it does not know."""

from __future__ import annotations

from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from reasonserve.config import Port, ServiceConfig


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class HttpOptions(_Closed):
    """Ray Serve's HTTP proxy.

    Attributes:
        host: Address it binds.
        port: Its port.
    """

    host: str
    port: Port


class GrpcOptions(_Closed):
    """Ray Serve's gRPC proxy.

    Attributes:
        port: Its port.
        grpc_servicer_functions: What it mounts; ours keeps cancelled streams from running on.
    """

    port: Port
    grpc_servicer_functions: tuple[Literal["reasonserve.gateway.proxy.add_generation_service"]]


class ActorOptions(_Closed):
    """What Ray sets aside for a replica of a deployment.

    Attributes:
        num_cpus: CPU cores.
        num_gpus: GPUs.
        resources: Custom resources; they keep deployments on their own nodes.
    """

    num_cpus: Annotated[float, Field(gt=0)]
    num_gpus: Annotated[float, Field(ge=0)] = 0.0
    resources: dict[Literal["reasonserve_gateway", "reasonserve_replica"], Annotated[float, Field(gt=0, le=1)]]


class AutoscalingOptions(_Closed):
    """How many gateways there are.

    Attributes:
        min_replicas: Fewest.
        max_replicas: Most.
        target_ongoing_requests: Calls for each.
    """

    min_replicas: Annotated[int, Field(ge=1)]
    max_replicas: Annotated[int, Field(ge=1)]
    target_ongoing_requests: Annotated[int, Field(ge=1)]


class DeploymentOptions(_Closed):
    """What the configuration changes of a deployment.

    Attributes:
        name: The deployment.
        num_replicas: A fixed number.
        autoscaling_config: Or a number by load.
        ray_actor_options: What Ray sets aside for each replica.
    """

    name: Literal["Gateway", "Replica"]
    num_replicas: Annotated[int, Field(ge=1)] | None = None
    autoscaling_config: AutoscalingOptions | None = None
    ray_actor_options: ActorOptions


class ApplicationArguments(_Closed):
    """What `reasonserve.app.Arguments` takes.

    Attributes:
        config: The cluster's configuration.
        controller_endpoint: ``host:port`` of the controller.
        admin_token_file: File that holds the admin token.
    """

    config: ServiceConfig
    controller_endpoint: Annotated[str, Field(pattern=r"^[^\s:/]+:[0-9]{1,5}$")]
    admin_token_file: Annotated[str, Field(pattern=r"^/")]


class ServeApplication(_Closed):
    """The application.

    Attributes:
        name: Its name.
        route_prefix: Its route; without one it is not reachable over gRPC.
        import_path: The function that builds it.
        args: What that function takes.
        deployments: What is changed of its deployments.
    """

    name: Literal["reasonserve"]
    route_prefix: Literal["/"]
    import_path: Literal["reasonserve.app:from_arguments"]
    args: ApplicationArguments
    deployments: tuple[DeploymentOptions, DeploymentOptions]


class ServeConfig(_Closed):
    """The whole file.

    Attributes:
        proxy_location: On which nodes there are proxies.
        http_options: The HTTP proxy.
        grpc_options: The gRPC proxy.
        applications: The application.
    """

    proxy_location: Literal["EveryNode"]
    http_options: HttpOptions
    grpc_options: GrpcOptions
    applications: tuple[ServeApplication]

    @classmethod
    def from_text(cls, text: str) -> ServeConfig:
        """Reads the text of a RayService's ``serveConfigV2``.

        Raises:
            pydantic.ValidationError: A key is unknown, missing or out of range.
        """
        return cls.model_validate(yaml.safe_load(text))
