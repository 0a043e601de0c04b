"""Tenant keys: ``rsk_<key id>_<secret>``. The secret is shown once and stored as an Argon2id hash."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import OrderedDict
from typing import NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

_KEY = re.compile(r"rsk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
# The secret holds 256 random bits, so stretching adds nothing against guessing: the parameters
# only keep a stolen table from being tried at hash-function speed, and a gateway's miss cheap.
_HASHER = PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1)


class NewKey(NamedTuple):
    """A key at the only moment its secret exists.

    Attributes:
        key_id: Identity; not secret.
        key: What the tenant sends.
        secret_hash: What is stored.
    """

    key_id: str
    key: str
    secret_hash: str


class ParsedKey(NamedTuple):
    """A presented key, taken apart."""

    key_id: str
    secret: str


def make_key() -> NewKey:
    """Draws a key from the system's randomness; takes milliseconds."""
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    return NewKey(key_id, f"rsk_{key_id}_{secret}", _HASHER.hash(secret))


def parse_key(key: str) -> ParsedKey | None:
    """Takes a presented key apart; None when it has not the form of one."""
    match = _KEY.fullmatch(key)
    return ParsedKey(match[1], match[2]) if match else None


def verify_secret(secret: str, secret_hash: str) -> bool:
    """Returns whether the secret is the hashed one, in constant time; takes milliseconds."""
    try:
        return _HASHER.verify(secret_hash, secret)
    except VerifyMismatchError:
        return False


class VerifiedKeys:
    """Keys that were verified before, by SHA-256, so that a repeated one costs no Argon2.

    It holds no permission: the caller still looks the key id up, so a revoked or expired key fails at once.

    Args:
        max_keys: The least recently presented ones are forgotten beyond this.
    """

    def __init__(self, max_keys: int = 4096) -> None:
        self._max_keys = max_keys
        self._key_ids: OrderedDict[bytes, str] = OrderedDict()

    def add(self, key: str, key_id: str) -> None:
        """Remembers a verified key."""
        self._key_ids[_digest(key)] = key_id
        while len(self._key_ids) > self._max_keys:
            self._key_ids.popitem(last=False)

    def key_id(self, key: str) -> str | None:
        """Returns the id of a verified key, or None."""
        digest = _digest(key)
        if digest not in self._key_ids:
            return None
        self._key_ids.move_to_end(digest)
        return self._key_ids[digest]

    def __len__(self) -> int:
        return len(self._key_ids)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
