"""The replicas behind their Ray Serve handle."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from reasonserve.errors import UnavailableError
from reasonserve.replica.messages import Failed, GenerateCall, Input, Item, ModelInfo, TokenCount
from reasonserve.telemetry.soon import soon


class RayReplicas:
    """See ``reasonserve.gateway.service.Replicas``.

    Args:
        handle: Handle of the replicas' deployment.
    """

    def __init__(self, handle: DeploymentHandle) -> None:
        self._generate = handle.options(stream=True, method_name="generate")
        self._count_tokens = handle.options(method_name="count_tokens")
        self._model_info = handle.options(method_name="model_info")

    async def generate(self, call: GenerateCall) -> AsyncGenerator[Item, None]:
        """Runs a call on a replica; closing what it returns cancels it there."""
        response = self._generate.remote(call)
        try:
            with _reachable():
                async for item in response:
                    yield item
        finally:
            soon(response.cancel)  # ends it at the replica when this is closed early; nothing after the end

    async def count_tokens(self, given: Input) -> TokenCount | Failed:
        """Counts an input's tokens on a replica."""
        with _reachable():
            count: TokenCount | Failed = await self._count_tokens.remote(given)
        return count

    async def model_info(self) -> ModelInfo:
        """Returns what a replica says of its model."""
        with _reachable():
            info: ModelInfo = await self._model_info.remote()
        return info


@contextmanager
def _reachable() -> Iterator[None]:
    try:
        yield
    except (RayActorError, DeploymentUnavailableError, BackPressureError) as error:
        raise UnavailableError("No replica can take the request now, or its replica stopped; retry.") from error
