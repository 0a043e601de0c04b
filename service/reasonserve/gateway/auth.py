"""Who is calling: tenant keys resolved by the controller and trusted for a short while.

Keys are kept only as digests under a secret of this process, and are never logged.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.errors import NotFoundError, ReasonServeError, UnauthenticatedError, UnavailableError

STALE_KEY_S = 600.0
"""A key that was verified is honoured this long while the controller cannot be asked."""
REFUSED_KEY_CACHE_S = 1.0
"""A key made a moment after it was first tried works this soon."""
MAX_CACHED_KEYS = 4096

Metadata = Iterable[tuple[str, str | bytes]]

logger = logging.getLogger(__name__)


class Owner(NamedTuple):
    """Whose key it is.

    Attributes:
        tenant_id: The tenant's id.
        ttl_s: How much longer the key is valid, in seconds, from a moment after the question.
    """

    tenant_id: str
    ttl_s: float = math.inf


class _Verdict(NamedTuple):
    tenant_id: str | None  # None: the key is refused
    at: float  # when the controller was asked: a key revoked since then is known to be so one cache time later
    ends_at: float = math.inf  # never after the key's end: its rest is counted from the question
    stale: bool = False


def to_owner(response: tenant_pb.ResolveTenantKeyResponse) -> Owner:
    """Reads the controller's answer."""
    ttl_s = response.ttl.ToNanoseconds() / 1e9 if response.HasField("ttl") else math.inf
    return Owner(response.tenant.tenant_id, ttl_s)


def bearer_key(metadata: Metadata) -> str:
    """Returns the key of a call's metadata.

    Raises:
        UnauthenticatedError: There is none.
    """
    for name, value in metadata:
        if name == "authorization" and isinstance(value, str):
            scheme, _, key = value.partition(" ")
            if scheme.lower() == "bearer" and key.strip():
                return key.strip()
    raise UnauthenticatedError("The call carries no tenant key; send the metadata `authorization: Bearer KEY`.")


class Authenticator:
    """Resolves keys to tenants.

    Args:
        resolve: Asks the controller for a key's owner; raises ``NotFoundError`` for an unknown key and any
            other ``ReasonServeError`` when it cannot be asked.
        key_cache_s: How long a verdict is trusted.
        checked: Told how each key was judged: hit, miss, stale or refused.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self,
        resolve: Callable[[str], Awaitable[Owner]],
        *,
        key_cache_s: float,
        checked: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolve = resolve
        self._key_cache_s = key_cache_s
        self._checked = checked
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        # Apart, so that a flood of wrong keys cannot push verified ones out.
        self._verified: OrderedDict[bytes, _Verdict] = OrderedDict()
        self._refused: OrderedDict[bytes, _Verdict] = OrderedDict()
        self._pending: dict[bytes, asyncio.Task[_Verdict]] = {}

    def verified(self, key: str) -> str | None:
        """Returns the id of the tenant whose key it is, where that is known without asking the controller."""
        verdict = self._cached(self._digest(key))
        if verdict is None or verdict.tenant_id is None:
            return None
        self._checked("hit")
        return verdict.tenant_id

    async def tenant_of(self, key: str) -> str:
        """Returns the id of the tenant whose key it is.

        Raises:
            UnauthenticatedError: The key is unknown, revoked or expired.
            UnavailableError: The controller cannot be asked and the key was not verified before.
        """
        digest = self._digest(key)
        verdict = self._cached(digest)
        result = "hit"
        if verdict is None:
            result = "miss"
            # Callers with the same key wait for one question; a caller who leaves does not take it along.
            task = self._pending.get(digest)
            if task is None:
                task = self._pending[digest] = asyncio.create_task(self._ask(digest, key))
                task.add_done_callback(lambda done: self._settle(digest, done))
            verdict = await asyncio.shield(task)
        self._checked("refused" if verdict.tenant_id is None else "stale" if verdict.stale else result)
        if verdict.tenant_id is None:
            raise UnauthenticatedError("The tenant key is unknown, revoked or expired; ask for a new one.")
        return verdict.tenant_id

    def _digest(self, key: str) -> bytes:
        return hashlib.blake2b(key.encode(), key=self._secret).digest()

    def _settle(self, digest: bytes, done: asyncio.Task[_Verdict]) -> None:
        del self._pending[digest]
        if not done.cancelled():
            done.exception()  # its callers have it; those who all left must not make the loop complain

    def _cached(self, digest: bytes) -> _Verdict | None:
        now = self._clock()
        verdict = self._verified.get(digest)
        if verdict and now - verdict.at < self._key_cache_s and now < verdict.ends_at:
            return verdict
        if (verdict := self._refused.get(digest)) and now - verdict.at < min(self._key_cache_s, REFUSED_KEY_CACHE_S):
            return verdict
        return None

    async def _ask(self, digest: bytes, key: str) -> _Verdict:
        asked_at = self._clock()
        try:
            owner = await self._resolve(key)
        except NotFoundError:
            self._verified.pop(digest, None)
            return self._remember(self._refused, digest, _Verdict(None, asked_at))
        except ReasonServeError as error:
            stale = self._verified.get(digest)
            logger.warning("The controller could not be asked for a key (%s).", type(error).__name__)
            now = self._clock()
            if stale is not None and now >= stale.ends_at:
                return _Verdict(None, asked_at)
            if stale is not None and now - stale.at < STALE_KEY_S:
                return stale._replace(stale=True)
            raise UnavailableError("Keys cannot be checked at the moment; retry in a few seconds.") from error
        return self._remember(self._verified, digest, _Verdict(owner.tenant_id, asked_at, asked_at + owner.ttl_s))

    @staticmethod
    def _remember(cache: OrderedDict[bytes, _Verdict], digest: bytes, verdict: _Verdict) -> _Verdict:
        cache[digest] = verdict
        cache.move_to_end(digest)
        if len(cache) > MAX_CACHED_KEYS:
            cache.popitem(last=False)
        return verdict
