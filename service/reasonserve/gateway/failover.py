"""A second try for a call whose replica was lost before the client saw anything of the answer."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from opentelemetry import trace

from reasonserve.errors import UnavailableError
from reasonserve.gateway.service import Replicas
from reasonserve.replica.messages import Delta, Failed, GenerateCall, Input, Item, ModelInfo, TokenCount
from reasonserve.telemetry import names
from reasonserve.telemetry.logs import fields

logger = logging.getLogger(__name__)


class Failover:
    """Replicas that are tried twice.

    A call is run again, once, when its replica was unavailable and nothing was passed on; the request router sends
    the second try elsewhere. The parts of an answer that the client awaits whole are held back until all its outputs
    have ended, so that such a call can always be run again. A stream that has begun ends with the error: what was
    sent is never sent again.

    Args:
        replicas: Where calls run.
    """

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas

    async def generate(self, call: GenerateCall) -> AsyncGenerator[Item, None]:
        """Runs a call; see ``Replicas``.

        Raises:
            UnavailableError: The second try failed too, or the answer had begun to stream.
        """
        try:
            async with aclosing(self._try(call)) as items:
                async for item in items:
                    yield item
            return
        except _LostError:
            ids = fields(request_id=call.request_id, tenant=call.tenant_id)
            logger.warning("request lost its replica and is run again", extra=ids)
            trace.get_current_span().add_event(names.EVENT_RETRY)
        again = replace(call, attempt=1, sent_ns=time.time_ns())
        async with aclosing(self._replicas.generate(again)) as items:
            async for item in items:
                yield item

    async def count_tokens(self, given: Input) -> TokenCount | Failed:
        """See ``Replicas``."""
        try:
            return await self._replicas.count_tokens(given)
        except UnavailableError:
            return await self._replicas.count_tokens(given)

    async def model_info(self) -> ModelInfo:
        """See ``Replicas``."""
        try:
            return await self._replicas.model_info()
        except UnavailableError:
            return await self._replicas.model_info()

    async def _try(self, call: GenerateCall) -> AsyncGenerator[Item, None]:
        """Runs a call for the first time.

        Raises:
            _LostError: Its replica was unavailable and nothing was passed on.
        """
        held: list[Item] = []
        has_passed, running = False, call.num_outputs
        try:
            async with aclosing(self._replicas.generate(call)) as items:
                async for item in items:
                    if isinstance(item, Failed) and isinstance(item.error, UnavailableError):
                        raise item.error
                    if call.is_streamed:
                        has_passed = True
                        yield item
                        continue
                    held.append(item)
                    running -= isinstance(item, Delta) and item.ending is not None
                    if not running:
                        break  # what the replica does after the last piece, nobody need wait for
        except UnavailableError:
            if has_passed:
                raise
            raise _LostError from None
        for item in held:
            yield item


class _LostError(Exception):
    """A replica was lost while the client had seen nothing."""
