"""What every section of the chart's values shares."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Name = Annotated[str, Field(pattern=r"^$|^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
"""Name of an object in the namespace; empty means none."""
SecretKey = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$")]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
"""Amount of a resource as Kubernetes writes it."""
Folder = Annotated[str, Field(pattern=r"^/[^\s:]*[^\s:/]$")]


class Section(BaseModel):
    """A closed mapping whose keys are spelled in camelCase, as Kubernetes does."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class LabelSelector(Section):
    """Which labels a pod or namespace must have.

    Attributes:
        match_labels: All of these.
        match_expressions: All of these conditions.
    """

    match_labels: dict[str, str] = {}
    match_expressions: list[dict[str, Any]] = []


class IpBlock(Section):
    """A range of addresses.

    Attributes:
        cidr: The range.
        excluded: Ranges within it that do not belong.
    """

    cidr: str
    excluded: list[str] = Field(default=[], alias="except", description="Ranges within it that do not belong.")


class Peer(Section):
    """Who may connect, or be connected to: a NetworkPolicyPeer of Kubernetes.

    Attributes:
        pod_selector: Pods of the namespaces selected, or of the release's own.
        namespace_selector: Namespaces.
        ip_block: Addresses.
    """

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IpBlock | None = None


class Toleration(Section):
    """A taint that a pod bears: a Toleration of Kubernetes.

    Attributes:
        key: The taint's key; empty is every key.
        operator: How the value is compared.
        value: The taint's value.
        effect: The taint's effect; empty is every effect.
        toleration_seconds: How long it bears NoExecute.
    """

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    toleration_seconds: int | None = None


class Resources(Section):
    """What a container asks for and may use.

    Attributes:
        requests: Set aside for it.
        limits: The most it may use.
    """

    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}


class Placement(Section):
    """Where pods run.

    Attributes:
        node_selector: Labels that a node must have.
        tolerations: Taints that the pods bear.
        affinity: Affinity of the pods, as in Kubernetes.
        topology_spread: Node label over whose values pods are spread where possible; empty for none.
        priority_class_name: Priority class; empty for the cluster's default.
        pod_annotations: Annotations of the pods.
    """

    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    affinity: dict[str, Any] = {}
    topology_spread: str = "kubernetes.io/hostname"
    priority_class_name: Name = ""
    pod_annotations: dict[str, str] = {}


def sized(cpu: str, memory: str, *, cpu_limit: str = "") -> Resources:
    """Returns a request of CPU and memory; memory is the limit too, CPU where one is given."""
    limits = {"memory": memory} | ({"cpu": cpu_limit} if cpu_limit else {})
    return Resources(requests={"cpu": cpu, "memory": memory}, limits=limits)
