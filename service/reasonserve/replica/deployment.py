"""The Ray Serve shell around ``ReplicaService``: start-up, health, shutdown."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from ray import serve

from reasonserve.config import ServiceConfig
from reasonserve.controller_client import read_admin_token
from reasonserve.kv import Handshake
from reasonserve.models.fingerprint import fingerprint
from reasonserve.models.resolve import resolve_model
from reasonserve.replica import scaling
from reasonserve.replica.admission import Admission
from reasonserve.replica.desk import Desk
from reasonserve.replica.figures import Figures, Gauges
from reasonserve.replica.lease_client import LeaseClient, ReplicaIdentity
from reasonserve.replica.messages import Failed, GenerateCall, Input, Item, ModelInfo, TokenCount
from reasonserve.replica.service import ReplicaService
from reasonserve.replica.sizing import QueueLimits
from reasonserve.replica.startup import active_profile, checked_handshake, load_factory
from reasonserve.replica.watch import EngineWatch
from reasonserve.telemetry.logs import set_up_logging
from reasonserve.telemetry.ray_metrics import RayRecorder
from reasonserve.telemetry.sampling import honour_parents
from reasonserve.telemetry.settings import TelemetrySettings


class Replica:
    """One engine, its ledger and its lease."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits the constructor, so the lease task lives on its loop
        self,
        config: ServiceConfig,
        *,
        controller_endpoint: str,
        admin_token_file: str,
        model_path: str | None,
        engine_factory: str,
    ) -> None:
        """Starts the engine with its model's active profile, and asks for a lease.

        Args:
            config: The cluster's configuration.
            controller_endpoint: ``host:port`` of the controller.
            admin_token_file: File that holds the admin token.
            model_path: Folder of the model; None finds the configured model on this node.
            engine_factory: ``module:function`` that makes an ``Engine`` of configuration, model folder and profile.

        Raises:
            StartupError: A part is missing; the replica must not become ready.
        """
        set_up_logging("replica")
        honour_parents(TelemetrySettings().sampling_ratio)
        model_path = model_path or str(await asyncio.to_thread(resolve_model, config.model))
        token = read_admin_token(Path(admin_token_file))
        profile = await active_profile(controller_endpoint, token, fingerprint(Path(model_path)))
        self._engine = load_factory(engine_factory)(config, model_path, profile)
        self._reports = 0
        self._assemble(config, checked_handshake(self._engine), controller_endpoint, token)
        for part in (self._desk, self._watch, self._lease, self._gauges):
            part.start()
        gc.collect()
        gc.freeze()  # what was loaded stays: to look through it for garbage would halt every request

    def _assemble(self, config: ServiceConfig, handshake: Handshake, controller_endpoint: str, token: str) -> None:
        """Puts the parts around the engine together; starts none."""
        replicas, engine = config.replicas, self._engine
        figures = Figures(RayRecorder(), max_tenants=config.telemetry.max_tenant_labels)
        self._admission = admission = Admission(
            pool_slots=handshake.pool_slots, buffer_tokens=config.engine.buffer_tokens, now=time.monotonic()
        )
        self._desk = Desk(admission=admission, engine=engine)
        self._watch = EngineWatch(engine)
        replica_id = serve.get_replica_context().replica_id.unique_id
        self._lease = LeaseClient(
            endpoint=controller_endpoint,
            token=token,
            identity=ReplicaIdentity(replica_id=replica_id, model=config.model, handshake=handshake),
            admission=admission,
            desk=self._desk,
            load=engine.load,
            queue=QueueLimits(requests=replicas.queue_requests, wait_s=replicas.queue_wait_s),
        )
        self._desk.on_change(self._lease.use_changed)
        self._service = ReplicaService(
            engine=engine,
            desk=self._desk,
            watch=self._watch,
            model=config.model,
            chunk_delay_s=replicas.chunk_delay_ms / 1000,
            figures=figures,
            records_content=config.telemetry.record_content,
            replica_id=replica_id,
        )
        self._gauges = Gauges(figures, admission=admission, handshake=handshake, load=engine.load, lease=self._lease)

    async def generate(self, call: GenerateCall) -> AsyncGenerator[Item, None]:
        """Yields what ``ReplicaService.generate`` does; called by handle with ``stream=True``.

        Ray cancels this when the caller's response generator is cancelled or its task is.
        """
        async with aclosing(self._service.generate(call)) as items:
            async for item in items:
                yield item

    async def count_tokens(self, given: Input) -> TokenCount | Failed:
        """Returns what ``ReplicaService.count_tokens`` does; called by handle."""
        return self._service.count_tokens(given)

    async def model_info(self) -> ModelInfo:
        """Returns what the model can do; called by handle."""
        return self._service.model_info()

    def record_routing_stats(self) -> dict[str, Any]:
        """Returns what the request router knows of this replica; called by Ray Serve."""
        self._reports += 1
        now = time.monotonic()
        uses = self._admission.use(now=now)
        free = {use.tenant_id: self._admission.free_slots(use.tenant_id, now=now) for use in uses}
        return {"report": self._reports, "free_slots": free, "is_dead": self._watch.is_dead}

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Returns what the autoscaling policy knows of this replica; called by Ray Serve."""
        uses = self._admission.use(now=time.monotonic())
        demand = sum(use.reserved_slots + use.wanted_slots + use.squeezed_slots for use in uses)
        return {scaling.DEMAND_METRIC: float(demand), scaling.POOL_METRIC: float(self._engine.handshake.pool_slots)}

    async def check_health(self) -> None:
        """Returns if the engine lives and the lease is renewed; Ray Serve replaces a replica that raises."""
        await self._engine.check_health()
        self._lease.check_health()

    async def __del__(self) -> None:
        """Stops lease and engine; Ray Serve awaits it once the running requests have ended."""
        for name in ("_gauges", "_lease", "_desk", "_watch"):
            if part := getattr(self, name, None):
                await part.stop()
        if engine := getattr(self, "_engine", None):
            engine.shutdown()
