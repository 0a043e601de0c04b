"""The Ray Serve shell around ``GatewayService``: the ingress for gRPC and for HTTP."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import grpc
from ray import serve
from ray.serve.grpc_util import RayServegRPCContext
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.config import ServiceConfig
from reasonserve.controller_client import admin_metadata, open_channel, read_admin_token, stubs
from reasonserve.gateway.auth import Authenticator, Owner, to_owner
from reasonserve.gateway.errors import reported
from reasonserve.gateway.failover import Failover
from reasonserve.gateway.listener import Listener
from reasonserve.gateway.observe import Requests
from reasonserve.gateway.openai.app import build_app
from reasonserve.gateway.replicas import RayReplicas
from reasonserve.gateway.service import GatewayService
from reasonserve.status import from_rpc_error
from reasonserve.telemetry import metrics
from reasonserve.telemetry.logs import set_up_logging
from reasonserve.telemetry.ray_metrics import RayRecorder
from reasonserve.telemetry.sampling import honour_parents
from reasonserve.telemetry.settings import TelemetrySettings

RESOLVE_TIMEOUT_S = 5.0
MAX_CALLS = 1024
"""Above what replicas admit, so that a client is refused by admission, with a retry time, and not left waiting."""
LOOPBACK = "127.0.0.1"
"""What a gateway that listens itself binds; other machines come through the front."""


@serve.ingress()
class Gateway:
    """Ingress of ``reasonserve.api.v1.GenerationService``, and of the OpenAI-compatible HTTP API beside it.

    Ray Serve finds methods by their gRPC names, and asks for the HTTP application once this is made.
    """

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits the constructor, so the channel lives on its loop
        self, config: ServiceConfig, replica: DeploymentHandle, *, controller_endpoint: str, admin_token_file: str
    ) -> None:
        """Connects to the controller.

        Args:
            config: The cluster's configuration.
            replica: Handle of the replicas.
            controller_endpoint: ``host:port`` of the controller.
            admin_token_file: File that holds the admin token.

        Raises:
            StartupError: There is no admin token, or its port is taken.
        """
        set_up_logging("gateway")
        honour_parents(TelemetrySettings().sampling_ratio)
        recorder = RayRecorder()
        self._metadata = admin_metadata(read_admin_token(Path(admin_token_file)))
        self._channel = open_channel(controller_endpoint)
        self._tenants = stubs(self._channel).tenants
        self._max_input_bytes = config.gateway.max_input_bytes
        self._service = GatewayService(
            model=config.model,
            authenticator=Authenticator(
                self._resolve,
                key_cache_s=config.gateway.key_cache_s,
                checked=lambda result: recorder.add(metrics.KEY_CHECKS, 1, result),
            ),
            replicas=Failover(RayReplicas(replica)),
            max_input_bytes=config.gateway.max_input_bytes,
            requests=Requests(recorder, max_tenants=config.telemetry.max_tenant_labels),
        )
        if config.gateway.entrance == "gateway":
            self._drain_s = config.replicas.drain_s
            self._listener = Listener(
                self._service,
                host=LOOPBACK,
                port=config.gateway.port,
                max_message_bytes=config.gateway.max_message_bytes,
                max_calls=MAX_CALLS,
            )
            await self._listener.start()
        gc.collect()
        gc.freeze()  # what was loaded stays: to look through it for garbage would halt every stream

    async def Generate(self, request: pb.GenerateRequest, grpc_context: RayServegRPCContext) -> pb.GenerateResponse:
        """Generates the whole answer; see the proto."""
        with reported(grpc_context):
            return await self._service.answer(request, grpc_context.invocation_metadata())
        return pb.GenerateResponse()

    async def GenerateStream(
        self, request: pb.GenerateRequest, grpc_context: RayServegRPCContext
    ) -> AsyncGenerator[pb.GenerateResponse, None]:
        """Generates the answer as it grows; see the proto."""
        with reported(grpc_context):
            async with aclosing(self._service.stream(request, grpc_context.invocation_metadata())) as responses:
                async for response in responses:
                    yield response
        if grpc_context.code():
            yield pb.GenerateResponse()  # Ray Serve sends a status along with messages only; this one is empty

    async def CountTokens(
        self, request: pb.CountTokensRequest, grpc_context: RayServegRPCContext
    ) -> pb.CountTokensResponse:
        """Counts the tokens of an input; see the proto."""
        with reported(grpc_context):
            return await self._service.count_tokens(request, grpc_context.invocation_metadata())
        return pb.CountTokensResponse()

    async def ListModels(
        self, request: pb.ListModelsRequest, grpc_context: RayServegRPCContext
    ) -> pb.ListModelsResponse:
        """Lists what is served; see the proto."""
        with reported(grpc_context):
            return await self._service.list_models(grpc_context.invocation_metadata())
        return pb.ListModelsResponse()

    def __serve_build_asgi_app__(self) -> Starlette:
        """Returns the HTTP application."""
        return build_app(self._service, max_body_bytes=self._max_input_bytes)

    async def _resolve(self, key: str) -> Owner:
        """Asks the controller whose key it is; errors as ``Authenticator`` wants them."""
        request = tenant_pb.ResolveTenantKeyRequest(key=key)
        try:
            response = await self._tenants.ResolveTenantKey(request, metadata=self._metadata, timeout=RESOLVE_TIMEOUT_S)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        return to_owner(response)

    async def __del__(self) -> None:
        """Lets running calls end, then closes the channel; Ray Serve awaits it once those it knows of have ended."""
        if listener := getattr(self, "_listener", None):
            await listener.stop(self._drain_s)
        if channel := getattr(self, "_channel", None):
            await channel.close()
