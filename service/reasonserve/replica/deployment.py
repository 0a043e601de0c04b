"""The Ray Serve shell around ``ReplicaService``: start-up, health, shutdown."""

from __future__ import annotations

import importlib
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import cast

import grpc
from ray import serve
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from reasonserve.api.v1 import profile_service_pb2 as pb
from reasonserve.config import ServiceConfig
from reasonserve.controller_client import admin_metadata, open_channel, read_admin_token, stubs
from reasonserve.engine.messages import Handshake
from reasonserve.errors import NotFoundError, StartupError, UnavailableError
from reasonserve.models.fingerprint import fingerprint
from reasonserve.replica.admission import Admission
from reasonserve.replica.lease_client import LeaseClient, ReplicaIdentity
from reasonserve.replica.messages import GenerateCall, Item
from reasonserve.replica.protocol import Engine
from reasonserve.replica.service import ReplicaService
from reasonserve.status import from_rpc_error

EngineFactory = Callable[[ServiceConfig, str, str | None], Engine]

CONTROLLER_WAIT_S = 30.0

logger = logging.getLogger(__name__)


class Replica:
    """One engine, its ledger and its lease."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits the constructor, so the lease task lives on its loop
        self,
        config: ServiceConfig,
        *,
        controller_endpoint: str,
        admin_token_file: str,
        model_path: str,
        engine_factory: str,
    ) -> None:
        """Starts the engine with its model's active profile, and asks for a lease.

        Args:
            config: The cluster's configuration.
            controller_endpoint: ``host:port`` of the controller.
            admin_token_file: File that holds the admin token.
            model_path: Folder of the model.
            engine_factory: ``module:function`` that makes an ``Engine`` of configuration, model folder and profile.

        Raises:
            StartupError: A part is missing; the replica must not become ready.
        """
        token = read_admin_token(Path(admin_token_file))
        profile = await active_profile(controller_endpoint, token, fingerprint(Path(model_path)))
        self._engine = load_factory(engine_factory)(config, model_path, profile)
        handshake = checked_handshake(self._engine)
        admission = Admission(pool_slots=handshake.pool_slots, buffer_tokens=config.engine.buffer_tokens)
        identity = ReplicaIdentity(
            replica_id=serve.get_replica_context().replica_id.unique_id, model=config.model, handshake=handshake
        )
        self._lease = LeaseClient(
            endpoint=controller_endpoint, token=token, identity=identity, admission=admission, load=self._engine.load
        )
        self._service = ReplicaService(
            engine=self._engine, admission=admission, model=config.model, use_changed=self._lease.use_changed
        )
        self._lease.start()

    async def generate(self, call: GenerateCall) -> AsyncGenerator[Item, None]:
        """Yields what ``ReplicaService.generate`` does; called by handle with ``stream=True``.

        Ray cancels this when the caller's response generator is cancelled or its task is.
        """
        async with aclosing(self._service.generate(call)) as items:
            async for item in items:
                yield item

    async def check_health(self) -> None:
        """Returns if the engine lives and the lease is renewed; Ray Serve replaces a replica that raises."""
        await self._engine.check_health()
        self._lease.check_health()

    async def __del__(self) -> None:
        """Stops lease and engine; Ray Serve awaits it once the running requests have ended."""
        if lease := getattr(self, "_lease", None):
            await lease.stop()
        if engine := getattr(self, "_engine", None):
            engine.shutdown()


def load_factory(import_path: str) -> EngineFactory:
    """Returns the function that an import path names.

    Raises:
        StartupError: There is none.
    """
    module, _, name = import_path.partition(":")
    try:
        return cast(EngineFactory, getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError, ValueError) as error:
        raise StartupError(f"The engine factory {import_path!r} cannot be loaded: {error}") from error


def checked_handshake(engine: Engine) -> Handshake:
    """Returns the engine's handshake: proof that compression is in place.

    Raises:
        StartupError: There is none, or it offers no method.
    """
    handshake = engine.handshake
    if handshake is None or not handshake.methods:
        engine.shutdown()
        raise StartupError(
            "The engine's scheduler did not say that the ReasonServe plugin is in place: it would serve without "
            "compression. Check that SGLANG_PLUGINS, if set, names `reasonserve`."
        )
    return handshake


@retry(
    retry=retry_if_exception_type(UnavailableError),
    wait=wait_exponential_jitter(initial=0.2, max=2.0),
    stop=stop_after_delay(CONTROLLER_WAIT_S),
    reraise=True,
)
async def _get_profile(endpoint: str, token: str, model_fingerprint: str) -> str | None:
    request = pb.GetProfileRequest(model_fingerprint=model_fingerprint)
    async with open_channel(endpoint) as channel:
        try:
            response = await stubs(channel).profiles.GetProfile(request, metadata=admin_metadata(token), timeout=10.0)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
    content: bytes = response.content
    return content.decode()


async def active_profile(endpoint: str, token: str, model_fingerprint: str) -> str | None:
    """Returns the active layer profile of a model as it was uploaded, or None where there is none.

    Raises:
        StartupError: The controller cannot be asked.
    """
    try:
        return await _get_profile(endpoint, token, model_fingerprint)
    except NotFoundError:
        logger.warning("No profile of this model is active: requests cannot use kv.method reasonalloc.")
        return None
    except UnavailableError as error:
        raise StartupError(
            f"The controller did not answer within {CONTROLLER_WAIT_S:.0f} s; start it first."
        ) from error
