"""What a replica needs before it may be ready: its engine, the engine's handshake, the model's profile."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import cast

import grpc
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from reasonserve.api.v1 import profile_service_pb2 as pb
from reasonserve.config import ServiceConfig
from reasonserve.controller_client import admin_metadata, open_channel, stubs
from reasonserve.errors import NotFoundError, StartupError, UnavailableError
from reasonserve.kv import Handshake
from reasonserve.replica.protocol import Engine
from reasonserve.status import from_rpc_error

EngineFactory = Callable[[ServiceConfig, str, str | None], Engine]

CONTROLLER_WAIT_S = 30.0

logger = logging.getLogger(__name__)


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
    wait=wait_exponential_jitter(multiplier=0.2, max=2.0),
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
