"""Values of the controller, the front, the model, monitoring and the network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from reasonserve.chart.base import (
    Count,
    Folder,
    IpBlock,
    LabelSelector,
    Name,
    Peer,
    Placement,
    Positive,
    Quantity,
    Resources,
    SecretKey,
    Section,
    sized,
)

_ANY_NAMESPACE = Peer(namespace_selector=LabelSelector())
_ANY_ADDRESS = (Peer(ip_block=IpBlock(cidr="0.0.0.0/0")), Peer(ip_block=IpBlock(cidr="::/0")))


class Image(Section):
    """One image.

    Attributes:
        repository: Where it is.
        tag: Its tag; empty is the chart's appVersion.
        digest: ``sha256:...``; wins over the tag, and is what production should name.
        pull_policy: When it is pulled.
    """

    repository: Annotated[str, Field(pattern=r"^[a-z0-9][-a-z0-9._/:]*$")]
    tag: Annotated[str, Field(pattern=r"^$|^[\w][\w.-]{0,127}$")] = ""
    digest: Annotated[str, Field(pattern=r"^$|^sha256:[a-f0-9]{64}$")] = ""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"


class Images(Section):
    """The two images; docker/ has their Dockerfiles.

    Attributes:
        engine: Replicas: SGLang with a GPU stack.
        control: Controller, gateways, Ray's head, front and tests: no GPU stack.
        pull_secrets: Secrets of the registry.
    """

    engine: Image = Image(repository="reasonserve/engine")
    control: Image = Image(repository="reasonserve/control")
    pull_secrets: list[Name] = []


class SecretRef(Section):
    """A key of a Secret that exists already; the chart never holds a secret.

    Attributes:
        existing_secret: Name of the Secret; empty for none.
        key: Its key.
    """

    existing_secret: Name = ""
    key: SecretKey = "token"


class AdminToken(SecretRef):
    """The administrator's token, which controller, gateways and replicas share.

    Attributes:
        existing_secret: Name of the Secret. Required.
        key: Its key.
        mount_path: Folder where pods find it.
    """

    mount_path: Folder = "/etc/reasonserve/admin-token"


class Sqlite(Section):
    """The controller's own file, in the volume of one pod.

    Attributes:
        persistent: Keep it in a claim; false loses tenants and keys with the pod.
        existing_claim: A claim that exists; empty makes one, which outlives the release.
        size: Size of the claim that is made.
        storage_class_name: Storage class of it; empty for the cluster's default.
    """

    persistent: bool = True
    existing_claim: Name = ""
    size: Quantity = "1Gi"
    storage_class_name: Name = ""


class Postgresql(SecretRef):
    """PostgreSQL, for one or several controllers, of which one leads.

    Attributes:
        existing_secret: Secret that holds the URL ``postgresql://USER:PASSWORD@HOST/DATABASE``.
        key: Its key.
        port: Port of the server, for the network policy.
    """

    key: SecretKey = "url"
    port: Annotated[int, Field(ge=1, le=65535)] = 5432


class Database(Section):
    """Where the controller keeps tenants, keys and profiles.

    Attributes:
        type: Which of the two.
        sqlite: For type sqlite.
        postgresql: For type postgresql.
    """

    type: Literal["sqlite", "postgresql"] = "sqlite"
    sqlite: Sqlite = Sqlite()
    postgresql: Postgresql = Postgresql()


class ControllerTls(Section):
    """TLS between the controller and its callers.

    Attributes:
        existing_secret: Secret with tls.crt, tls.key and ca.crt; the certificate names the Service and localhost.
            Empty for plain text.
        client_secret: Secret with tls.crt and tls.key that gateways and replicas present (mTLS); empty asks for none.
    """

    existing_secret: Name = ""
    client_secret: Name = ""


class ServiceOptions(Section):
    """A Service.

    Attributes:
        annotations: Its annotations.
    """

    annotations: dict[str, str] = {}


class ExposedService(ServiceOptions):
    """A Service that clients may reach.

    Attributes:
        annotations: Its annotations.
        type: ClusterIP, or LoadBalancer to let clients in from outside.
    """

    type: Literal["ClusterIP", "LoadBalancer", "NodePort"] = "ClusterIP"


class Controller(Placement):
    """The controller, which hands out KV memory.

    Attributes:
        enabled: Run one in this release.
        endpoint: ``host:port`` of another release's; for enabled false.
        replicas: Controllers; more than one needs PostgreSQL. Those that do not lead are never ready.
        capacity_slots: Capacity that guarantees are checked against; 0 takes the live replicas'.
        database: Its store.
        operator_token: A token that reads and does not write.
        tls: TLS to it.
        service: Its Service.
        resources: Its container's.
        tokens_resources: Of the init container that copies tokens, and of the test pod.
    """

    enabled: bool = True
    endpoint: Annotated[str, Field(pattern=r"^$|^[^\s:/]+:[0-9]{1,5}$")] = ""
    replicas: Positive = 1
    capacity_slots: Count = 0
    database: Database = Database()
    operator_token: SecretRef = SecretRef()
    tls: ControllerTls = ControllerTls()
    service: ServiceOptions = ServiceOptions()
    resources: Resources = sized("250m", "512Mi")
    tokens_resources: Resources = sized("50m", "128Mi", cpu_limit="500m")


class ModelVolume(Section):
    """Where a replica's node finds models.

    Attributes:
        type: emptyDir fetches for each pod; persistentVolumeClaim and hostPath are shared.
        claim_name: Claim, for type persistentVolumeClaim; ReadWriteMany where models are fetched by several nodes.
        host_path: Folder of the node, for type hostPath, readable by podSecurity.runAsUser.
        size_limit: Most that an emptyDir may hold.
    """

    type: Literal["emptyDir", "persistentVolumeClaim", "hostPath"] = "emptyDir"
    claim_name: Name = ""
    host_path: Annotated[str, Field(pattern=r"^$|^/")] = ""
    size_limit: Quantity = "200Gi"


class Model(Section):
    """How the model that ``config.model`` names comes to a node.

    Attributes:
        mount_path: Where the volume is mounted; a ``config.model`` below it is served from there and not fetched.
        volume: The volume.
        hub_token: Token of the Hugging Face hub, for models that ask for one.
        prepare_resources: Of the init container that fetches the model.
    """

    mount_path: Folder = "/models"
    volume: ModelVolume = ModelVolume()
    hub_token: SecretRef = SecretRef()
    prepare_resources: Resources = sized("500m", "4Gi")


class NetworkPolicy(Section):
    """Who may reach which port; what is not named here is closed.

    Attributes:
        enabled: Make the policies; the cluster's network must enforce them.
        clients: May call the front, or the gateways where there is none.
        operators: May call the controller.
        ray_operator: KubeRay's operator, which sends configuration to Ray's head.
        monitoring: May read metrics.
        dns: Answers names.
        collector: Takes traces, at the port of ``config.telemetry.otlp_endpoint``.
        database: PostgreSQL.
        external_controller: The controller of another release.
        model_hub: Where replicas fetch models, at port 443.
        kubernetes_api: The API server, for Ray's autoscaler, at ports 443 and 6443.
    """

    enabled: bool = True
    clients: list[Peer] = [_ANY_NAMESPACE]
    operators: list[Peer] = []
    ray_operator: list[Peer] = [
        Peer(
            namespace_selector=LabelSelector(),
            pod_selector=LabelSelector(match_labels={"app.kubernetes.io/name": "kuberay-operator"}),
        )
    ]
    monitoring: list[Peer] = [
        Peer(namespace_selector=LabelSelector(match_labels={"kubernetes.io/metadata.name": "monitoring"}))
    ]
    dns: list[Peer] = [
        Peer(
            namespace_selector=LabelSelector(match_labels={"kubernetes.io/metadata.name": "kube-system"}),
            pod_selector=LabelSelector(match_labels={"k8s-app": "kube-dns"}),
        )
    ]
    collector: list[Peer] = [_ANY_NAMESPACE]
    database: list[Peer] = [_ANY_NAMESPACE]
    external_controller: list[Peer] = [_ANY_NAMESPACE]
    model_hub: list[Peer] = list(_ANY_ADDRESS)
    kubernetes_api: list[Peer] = list(_ANY_ADDRESS)
