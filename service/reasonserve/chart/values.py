"""All values of the chart."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from reasonserve.chart.base import Count, Name, Placement, Positive, Resources, Section, sized
from reasonserve.chart.parts import AdminToken, Controller, ExposedService, Images, Model, NetworkPolicy
from reasonserve.config import ServiceConfig

GroupName = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$")]


class Head(Placement):
    """Ray's head: no requests run there.

    Attributes:
        resources: Its container's.
    """

    resources: Resources = sized("1", "4Gi", cpu_limit="2")


class Gateway(Placement):
    """Gateways, one to a Ray node on CPUs; clients' calls end here.

    Attributes:
        min_replicas: Fewest.
        max_replicas: Most; equal to minReplicas for a fixed number.
        target_ongoing_requests: Calls per gateway that autoscaling aims at.
        idle_timeout_seconds: A node without a gateway is given back after this long.
        service: The serving Service, which Ray's operator makes.
        resources: Its container's.
    """

    min_replicas: Positive = 2
    max_replicas: Positive = 4
    target_ongoing_requests: Positive = 128
    idle_timeout_seconds: Count = 300
    service: ExposedService = ExposedService()
    resources: Resources = sized("1", "2Gi", cpu_limit="2")


class ReplicaGroup(Placement):
    """Ray nodes for replicas.

    Attributes:
        name: Name of the group; unique.
        min_replicas: Fewest nodes.
        max_replicas: Most nodes; the autoscaler adds one when a replica finds no room.
        idle_timeout_seconds: A node without a replica is given back after this long.
        gpus_per_pod: Accelerators of a node; 0 for replicas on CPUs.
        gpu_resource: Name of the accelerator's resource.
        replicas_per_pod: Most replicas on a node.
        runtime_class_name: Container runtime, where GPUs need one.
        resources: Its container's, without the accelerators.
    """

    name: GroupName
    min_replicas: Count = 1
    max_replicas: Positive = 1
    idle_timeout_seconds: Count = 600
    gpus_per_pod: Count = 1
    gpu_resource: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")] = "nvidia.com/gpu"
    replicas_per_pod: Positive = 1
    runtime_class_name: Name = ""
    resources: Resources = sized("8", "64Gi", cpu_limit="16")


class Ray(Section):
    """What all Ray nodes share.

    Attributes:
        version: Release of Ray in the images.
        object_store_bytes: Shared memory for Ray's objects; requests and tokens are small.
        token_authentication: Ray's processes and Ray's operator present a token, which the operator draws.
        environment: More variables for every Ray node.
    """

    version: Annotated[str, Field(pattern=r"^2\.[0-9]+\.[0-9]+$")] = "2.60.0"
    object_store_bytes: Annotated[int, Field(ge=78643200)] = 209715200
    token_authentication: bool = True
    environment: dict[str, str] = {}


class Autoscaler(Section):
    """Ray's autoscaler, version 2: turns replicas without room into pods.

    Attributes:
        idle_timeout_seconds: For groups that name none.
        upscaling_mode: How fast it adds nodes.
        resources: Its container's, beside Ray's head.
    """

    idle_timeout_seconds: Count = 300
    upscaling_mode: Literal["Default", "Aggressive", "Conservative"] = "Default"
    resources: Resources = sized("500m", "1Gi", cpu_limit="500m")


class Incremental(Section):
    """For strategy NewClusterWithIncrementalUpgrade.

    Attributes:
        gateway_class_name: Class of the Gateway that Ray's operator makes; its backends must speak h2c.
        step_size_percent: Traffic that moves at once.
        interval_seconds: Time between two steps.
        max_surge_percent: Capacity of the new cluster that is added at once.
    """

    gateway_class_name: Name = ""
    step_size_percent: Annotated[int, Field(ge=1, le=100)] = 10
    interval_seconds: Positive = 30
    max_surge_percent: Annotated[int, Field(ge=1, le=100)] = 100


class Upgrade(Section):
    """What happens when nodes must change; a change of ``config`` alone rolls replicas inside the cluster.

    Attributes:
        strategy: NewCluster replaces all nodes at once and switches over; NewClusterWithIncrementalUpgrade moves
            traffic step by step; None changes nothing that runs.
        drain_seconds: How long the old nodes stay after the switch, for streams that run.
        incremental: For the incremental strategy.
    """

    strategy: Literal["NewCluster", "NewClusterWithIncrementalUpgrade", "None"] = "NewCluster"
    drain_seconds: Count = 600
    incremental: Incremental = Incremental()


class Front(Placement):
    """The mTLS front: HAProxy out of the control image.

    Attributes:
        enabled: Put it before the gateways; without it they speak plain text to whoever the policy lets in.
        replicas: Fronts.
        tls_secret: Secret with tls.crt and tls.key of the server, and ca.crt that signs clients' certificates.
        health_port: Plain page ``/healthz`` for the kubelet. Clients call ``config.front.port``.
        service: Its Service.
        resources: Its container's.
    """

    enabled: bool = False
    replicas: Positive = 2
    tls_secret: Name = ""
    health_port: Annotated[int, Field(ge=1024, le=65535)] = 9080
    service: ExposedService = ExposedService()
    resources: Resources = sized("250m", "256Mi")


class Disruption(Section):
    """Budgets for evictions. The controller has none: replicas serve on without it.

    Attributes:
        enabled: Make them, for parts that have more pods than may go.
        max_unavailable: Pods of a part that may go at once.
    """

    enabled: bool = True
    max_unavailable: Positive = 1


class PodSecurity(Section):
    """Who containers run as; the pods pass the Pod Security Standard "restricted", but for a hostPath of models.

    Attributes:
        run_as_user: User id of the images.
        run_as_group: Group id.
        fs_group: Group of mounted volumes.
        read_only_root_filesystem: Containers write to /tmp alone.
    """

    run_as_user: Positive = 10001
    run_as_group: Positive = 10001
    fs_group: Positive = 10001
    read_only_root_filesystem: bool = True


class ServiceAccounts(Section):
    """Service accounts, one for each part. Only the head's reaches Kubernetes, with what Ray's operator grants it.

    Attributes:
        annotations: Of all of them.
    """

    annotations: dict[str, str] = {}


class Dashboards(Section):
    """Grafana's dashboards as ConfigMaps.

    Attributes:
        enabled: Make them.
        labels: What Grafana's sidecar looks for.
    """

    enabled: bool = False
    labels: dict[str, str] = {"grafana_dashboard": "1"}


class Monitoring(Section):
    """Prometheus Operator.

    Attributes:
        enabled: Make PodMonitors and ServiceMonitors; needs their definitions in the cluster.
        interval: Between two scrapes.
        labels: What Prometheus selects monitors by.
        dashboards: Grafana's dashboards.
    """

    enabled: bool = False
    interval: Annotated[str, Field(pattern=r"^[0-9]+(ms|s|m)$")] = "15s"
    labels: dict[str, str] = {}
    dashboards: Dashboards = Dashboards()


class Values(Section):
    """Values of the chart.

    Attributes:
        fullname_override: Name of everything; empty is RELEASE-reasonserve.
        common_labels: Labels of every object and pod.
        config: The configuration file of docs/configuration.md, verbatim; what is left out has the file's default.
        images: The images.
        admin_token: The administrator's token.
        controller: The controller.
        head: Ray's head.
        gateway: The gateways.
        replica_groups: Nodes for replicas.
        ray: All Ray nodes.
        autoscaler: Ray's autoscaler.
        upgrade: Upgrades of nodes.
        model: The model's way to a node.
        front: The mTLS front.
        network_policy: Who may reach which port.
        pod_disruption_budget: Evictions.
        pod_security: Who containers run as.
        service_accounts: Service accounts.
        monitoring: Metrics.
    """

    fullname_override: Annotated[str, Field(pattern=r"^$|^[a-z]([-a-z0-9]*[a-z0-9])?$")] = ""
    common_labels: dict[str, str] = {}
    config: ServiceConfig = ServiceConfig()
    images: Images = Images()
    admin_token: AdminToken = AdminToken()
    controller: Controller = Controller()
    head: Head = Head()
    gateway: Gateway = Gateway()
    replica_groups: Annotated[list[ReplicaGroup], Field(min_length=1)] = [ReplicaGroup(name="gpu")]
    ray: Ray = Ray()
    autoscaler: Autoscaler = Autoscaler()
    upgrade: Upgrade = Upgrade()
    model: Model = Model()
    front: Front = Front()
    network_policy: NetworkPolicy = NetworkPolicy()
    pod_disruption_budget: Disruption = Disruption()
    pod_security: PodSecurity = PodSecurity()
    service_accounts: ServiceAccounts = ServiceAccounts()
    monitoring: Monitoring = Monitoring()


CONFIG: dict[str, Any] = {
    "model": ServiceConfig().model,
    "replicas": {"num_gpus": 1.0},
    "gateway": {"entrance": "proxy"},
    "controller": {"metrics_port": 9101},
    "telemetry": {"metrics_port": 8080},
}
"""The chart's own ``config``: GPUs, calls that any node takes, and metrics at ports that can be declared."""
