"""Whose key is presented: the ledger's keys, with a memory for those that were verified before."""

from __future__ import annotations

import asyncio

from reasonserve.controller.core import Controller
from reasonserve.controller.keys import ParsedKey, VerifiedKeys, parse_key, verify_secret
from reasonserve.controller.records import Key


class Keyring:
    """Resolves presented keys.

    Args:
        controller: The shell around the ledger.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._verified = VerifiedKeys()

    async def resolve(self, presented: str) -> Key | None:
        """Returns the stored key; None when it is unknown, revoked or expired.

        Raises:
            UnavailableError: This controller stands by.
        """
        state = self._controller.ledger.state
        key_id = self._verified.key_id(presented)
        if key_id is None:
            parsed = parse_key(presented)
            stored = state.valid_key(parsed.key_id, self._controller.now_ns()) if parsed else None
            if parsed is None or stored is None or not await _is_secret_of(parsed, stored):
                return None
            key_id = stored.key_id
            self._verified.add(presented, key_id)
        # Looked up after the wait: the key may have been revoked or have expired meanwhile.
        return state.valid_key(key_id, self._controller.now_ns())


async def _is_secret_of(parsed: ParsedKey, stored: Key) -> bool:
    # Argon2 takes milliseconds: off the event loop.
    return await asyncio.to_thread(verify_secret, parsed.secret, stored.secret_hash)
