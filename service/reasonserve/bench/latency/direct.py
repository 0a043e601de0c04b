"""Our own part without Ray: gateway and replica in one process behind a plain ``grpc.aio`` server.

What a stack costs beyond this is Ray Serve's two hops. ``python -m reasonserve.bench.latency.direct`` prints its port
and serves until its standard input closes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from prometheus_client import CollectorRegistry

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import generation_service_pb2_grpc as pb_grpc
from reasonserve.bench.latency.bare import serve
from reasonserve.bench.latency.noop import NoopEngine
from reasonserve.gateway.auth import Authenticator, Owner
from reasonserve.gateway.observe import Requests
from reasonserve.gateway.service import GatewayService
from reasonserve.replica.admission import Admission
from reasonserve.replica.desk import Desk
from reasonserve.replica.figures import Figures
from reasonserve.replica.lease import Lease
from reasonserve.replica.messages import Failed, Input, ModelInfo, TokenCount
from reasonserve.replica.service import ReplicaService
from reasonserve.replica.sizing import TenantTerms
from reasonserve.replica.watch import EngineWatch
from reasonserve.telemetry.prometheus import PrometheusRecorder

SLOTS = 1 << 20
TENANT = "bench"


class Replicas:
    """See ``reasonserve.gateway.service.Replicas``: one replica, by plain calls."""

    def __init__(self, recorder: PrometheusRecorder) -> None:
        engine = NoopEngine(pool_slots=SLOTS)
        admission = Admission(pool_slots=SLOTS, buffer_tokens=128)
        terms = TenantTerms(
            tenant_id=TENANT,
            slots=SLOTS,
            guaranteed_slots=0,
            limit_slots=SLOTS,
            min_tokens=32,
            default_tokens=128,
            max_tokens=1024,
        )
        lease = Lease(epoch=1, ttl_s=86400.0, tenants={TENANT: terms}, num_replicas=1)
        admission.apply_lease(lease, granted_at=time.monotonic(), now=time.monotonic())
        desk = Desk(admission=admission, engine=engine)
        self._service = ReplicaService(
            engine=engine, desk=desk, watch=EngineWatch(engine), model="noop", figures=Figures(recorder)
        )
        self.generate = self._service.generate

    async def count_tokens(self, given: Input) -> TokenCount | Failed:
        """Counts an input's tokens."""
        return self._service.count_tokens(given)

    async def model_info(self) -> ModelInfo:
        """Returns what the model can do."""
        return self._service.model_info()


class Direct(pb_grpc.GenerationServiceServicer):
    """Answers by way of gateway and replica."""

    def __init__(self) -> None:
        recorder = PrometheusRecorder(CollectorRegistry())
        self._service = GatewayService(
            model="noop",
            authenticator=Authenticator(_resolve, key_cache_s=5.0),
            replicas=Replicas(recorder),
            max_input_bytes=1 << 20,
            requests=Requests(recorder),
        )

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:  # noqa: N802
        """Returns the whole answer."""
        return await self._service.answer(request, context.invocation_metadata())

    async def GenerateStream(  # noqa: N802
        self, request: pb.GenerateRequest, context: Any
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Yields the answer as it grows."""
        async for response in self._service.stream(request, context.invocation_metadata()):
            yield response


async def _resolve(_: str) -> Owner:
    return Owner(TENANT)


if __name__ == "__main__":
    asyncio.run(serve(Direct))
