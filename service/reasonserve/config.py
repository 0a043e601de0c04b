"""The one configuration file of a cluster, typed and closed: a misspelt key is refused with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reasonserve.errors import StartupError

DEFAULT_MODEL = "smollm2-135m-instruct"
DEFAULT_GATEWAY_PORT = 9000
DEFAULT_CONTROLLER_PORT = 9100
MIN_MESSAGE_LIMIT_BYTES = 16 << 20

Port = Annotated[int, Field(ge=1, le=65535)]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EngineConfig(_Closed):
    """One SGLang runtime.

    Attributes:
        dtype: Element type of weights and KV cache.
        pool_slots: Token slots of the KV pool; None lets SGLang size it by free memory.
        context_length: Most tokens of prompt and output together; None takes the model's.
        buffer_tokens: Most tail slots of a request between two compression rounds.
        strict_checks: SGLang's own memory checks at every step; a leak ends the engine.
        grammar_backend: What enforces JSON schemas, regular expressions and grammars; none refuses them.
        reasoning_parser: SGLang's parser that separates reasoning from the answer; None leaves text as it is.
        random_seed: Seed of the engine's sampling.
        device: Where the engine computes.
        allow_unproven_device: Whether to start on a device that this release was never run on, which is `cuda`.
        table_cells: Tokens that one kv head of a request may keep. On `cuda` a request that could keep more is refused;
            on `cpu` the tables grow.
        prefill_chunk_tokens: Most tokens of prompts in one step: a long one is read in several; None takes SGLang's.
        mixed_chunks: Whether running requests join the steps that read prompts, or wait for them; on `cpu` only.
    """

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "bfloat16"
    pool_slots: Annotated[int, Field(ge=256)] | None = 16384
    context_length: Annotated[int, Field(ge=64)] | None = None
    buffer_tokens: Annotated[int, Field(ge=16, le=4096)] = 128
    strict_checks: bool = True
    grammar_backend: Literal["xgrammar", "none"] = "xgrammar"
    reasoning_parser: str | None = None
    random_seed: int = 0
    device: Literal["cpu", "cuda"] = "cpu"
    allow_unproven_device: bool = False
    table_cells: Annotated[int, Field(ge=64)] = 1024
    prefill_chunk_tokens: Annotated[int, Field(ge=16)] | None = None
    mixed_chunks: bool = False


class RoutingConfig(_Closed):
    """Which replica a request goes to.

    Attributes:
        policy: By prefix affinity and free leased slots, or the less busy of two at random.
        imbalance: How far above the mean the work of one replica may be, as a share of it; for prefix affinity.
    """

    policy: Literal["prefix-affinity", "power-of-two"] = "prefix-affinity"
    imbalance: Annotated[float, Field(ge=0, le=10)] = 0.1


class ScalingConfig(_Closed):
    """How many replicas there are: by KV pressure, the slots that are held, waited for or squeezed over the pools.

    Attributes:
        max_count: Most replicas; None keeps `count`, which is the fewest otherwise.
        target_pressure: Pressure to aim at.
        upscale_delay_s: How long more replicas must be wanted before they are started.
        downscale_delay_s: How long fewer must be wanted before one is drained.
        interval_s: How often replicas report.
        window_s: Reports are averaged over this long; longer than `interval_s`.
    """

    max_count: Annotated[int, Field(ge=1)] | None = None
    target_pressure: Annotated[float, Field(gt=0, le=1)] = 0.8
    upscale_delay_s: Annotated[float, Field(ge=0)] = 10.0
    downscale_delay_s: Annotated[float, Field(ge=0)] = 120.0
    interval_s: Annotated[float, Field(gt=0)] = 1.0
    window_s: Annotated[float, Field(gt=0)] = 5.0


class ReplicaConfig(_Closed):
    """Replicas of the engine.

    Attributes:
        count: Replicas; the fewest where `scaling.max_count` is set.
        num_cpus: CPU cores that Ray sets aside for each.
        num_gpus: GPUs that Ray sets aside for each.
        max_ongoing_requests: Requests in one replica at a time.
        chunk_delay_ms: New tokens of a stream wait at most this long for the next ones, to share a message.
        queue_requests: Most requests that wait for memory at a replica, of a tenant without a limit of its own; 0
            refuses at once.
        queue_wait_s: Longest that a request waits for memory, of a tenant without a limit of its own.
        drain_s: How long running requests get to end when a replica is stopped.
    """

    count: Annotated[int, Field(ge=1)] = 1
    num_cpus: Annotated[float, Field(gt=0)] = 1.0
    num_gpus: Annotated[float, Field(ge=0)] = 0.0
    max_ongoing_requests: Annotated[int, Field(ge=1)] = 256
    chunk_delay_ms: Annotated[float, Field(ge=0, le=1000)] = 20.0
    queue_requests: Annotated[int, Field(ge=0)] = 64
    queue_wait_s: Annotated[float, Field(ge=0, le=3600)] = 10.0
    drain_s: Annotated[float, Field(ge=0)] = 60.0
    routing: RoutingConfig = RoutingConfig()
    scaling: ScalingConfig = ScalingConfig()

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        if self.scaling.max_count is not None and self.scaling.max_count < self.count:
            raise ValueError(f"scaling.max_count is {self.scaling.max_count}, below count {self.count}; raise it")
        if self.scaling.window_s <= self.scaling.interval_s:
            raise ValueError("scaling.window_s must be longer than scaling.interval_s")
        return self

    @property
    def most(self) -> int:
        """Most replicas that there may be."""
        return self.scaling.max_count or self.count


class GatewayConfig(_Closed):
    """Where clients call.

    Attributes:
        port: gRPC port.
        entrance: Who listens there. ``gateway``: the gateway itself, on this machine. ``proxy``: Ray Serve's gRPC
            proxy, on every node, which passes calls on to a gateway; for a cluster.
        http_port: HTTP port of Ray Serve's proxy: the OpenAI-compatible API, and health.
        key_cache_s: How long a resolved tenant key is trusted without asking again.
        max_input_bytes: Largest request message.
    """

    port: Port = DEFAULT_GATEWAY_PORT
    entrance: Literal["gateway", "proxy"] = "gateway"
    http_port: Port = 8000
    key_cache_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    max_input_bytes: Annotated[int, Field(ge=1024)] = 4 << 20

    @property
    def max_message_bytes(self) -> int:
        """Largest message on the wire; it bounds answers too, which are longer than their requests."""
        return max(4 * self.max_input_bytes, MIN_MESSAGE_LIMIT_BYTES)


class ControllerConfig(_Closed):
    """The controller process.

    Attributes:
        host: Address it binds.
        port: gRPC port.
        database_url: SQLAlchemy URL; None is SQLite in the state directory.
        lease_ttl_s: A lease lapses this long after its last renewal.
        metrics_port: Its Prometheus page is at this port of `host`; None is no page.
    """

    host: str = "127.0.0.1"
    port: Port = DEFAULT_CONTROLLER_PORT
    database_url: str | None = None
    lease_ttl_s: Annotated[float, Field(ge=1, le=300)] = 10.0
    metrics_port: Port | None = None

    @property
    def endpoint(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"


class FrontConfig(_Closed):
    """The TLS front: what clients reach from other machines. On when it has a certificate.

    Attributes:
        host: Address it binds.
        port: TLS port for gRPC and HTTP.
        health_port: Plain HTTP port that answers ``/healthz`` and nothing else, for load balancers.
        tls_cert: PEM certificate, with its chain.
        tls_key: PEM private key of the certificate.
        client_ca: Clients must present a certificate that one of these signed (mTLS).
        max_connections: Most connections at a time.
    """

    host: str = "0.0.0.0"
    port: Port = 9443
    health_port: Port | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    max_connections: Annotated[int, Field(ge=1)] = 1024

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together; set both or neither")
        if self.client_ca is not None and self.tls_cert is None:
            raise ValueError("client_ca is given without tls_cert; a front without TLS cannot ask for certificates")
        return self


class TelemetryConfig(_Closed):
    """Where traces, metrics and logs go.

    Attributes:
        trace_file: Spans are appended here as JSON lines; None is the state directory's.
        otlp_endpoint: Spans go to this OTLP/gRPC collector as well: ``http://host:port``, or ``https://`` for TLS.
        sampling_ratio: Share of the traces begun here that are kept; a caller's own decision stands.
        record_content: Prompts and answers go into spans.
        log_format: One JSON object a line, or text.
        log_file: Log lines are appended here; None is the standard error stream.
        metrics_port: Ray's Prometheus page is at this port of each node; None takes a free one.
        max_tenant_labels: Tenants that get a label of their own in metrics; the others are ``other``.
    """

    trace_file: Path | None = None
    otlp_endpoint: Annotated[str, Field(pattern=r"^https?://[^/]+$")] | None = None
    sampling_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    record_content: bool = False
    log_format: Literal["text", "json"] = "text"
    log_file: Path | None = None
    metrics_port: Port | None = None
    max_tenant_labels: Annotated[int, Field(ge=1, le=10_000)] = 64


class ServiceConfig(_Closed):
    """A cluster: model, engine, replicas, gateway, front, controller, telemetry.

    Attributes:
        model: Built-in name, Hugging Face id or local folder.
    """

    model: str = DEFAULT_MODEL
    engine: EngineConfig = EngineConfig()
    replicas: ReplicaConfig = ReplicaConfig()
    gateway: GatewayConfig = GatewayConfig()
    front: FrontConfig = FrontConfig()
    controller: ControllerConfig = ControllerConfig()
    telemetry: TelemetryConfig = TelemetryConfig()

    @model_validator(mode="after")
    def _gpus_are_set_aside(self) -> Self:
        if self.engine.device == "cuda" and self.replicas.num_gpus == 0:
            raise ValueError("engine.device is cuda and replicas.num_gpus 0, which hides all GPUs; raise it")
        return self

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Reads a YAML file.

        Raises:
            StartupError: Not readable, not YAML, or a key is unknown or out of range.
        """
        try:
            data = yaml.safe_load(path.read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            raise StartupError(f"Cannot read the configuration file {path}: {error}") from error
        return cls.from_mapping(data)

    @classmethod
    def from_mapping(cls, data: object) -> Self:
        """Checks a mapping.

        Raises:
            StartupError: Names each key at fault with what is allowed.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
            raise StartupError(f"The configuration is wrong: {faults}.") from error
