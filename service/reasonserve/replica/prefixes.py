"""Names for the prefixes of a prompt, and who holds them.

A prompt is cut into blocks; a block's name covers all before it (a hash chain), so two prompts share a name
exactly where they share everything up to there. Admission charges a shared block once; the request router finds
the replica that has seen most of a prompt.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b

BLOCK_TOKENS = 16
"""Tokens of one block in admission: fine enough for a short system prompt."""
_NAME_BYTES = 16


def chain(data: bytes, *, block_bytes: int, salt: str) -> tuple[bytes, ...]:
    """Returns the name of each whole block of some bytes, in order; a shorter rest has none.

    Args:
        data: What is cut.
        block_bytes: Length of a block.
        salt: Names of different salts never meet: the tenant, whose prefix cache is its own.
    """
    name = blake2b(salt.encode(), digest_size=_NAME_BYTES).digest()
    names = []
    for start in range(0, len(data) - block_bytes + 1, block_bytes):
        name = blake2b(name + data[start : start + block_bytes], digest_size=_NAME_BYTES).digest()
        names.append(name)
    return tuple(names)


def token_blocks(token_ids: Sequence[int], *, salt: str) -> tuple[bytes, ...]:
    """Returns the names of a tokenized prompt's blocks of ``BLOCK_TOKENS``."""
    data = array("q", token_ids)
    return chain(data.tobytes(), block_bytes=BLOCK_TOKENS * data.itemsize, salt=salt)


class HeldBlocks:
    """Prompt blocks that running requests hold, each counted once however many hold it."""

    def __init__(self) -> None:
        self._holders: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._holders)

    def missing(self, names: Iterable[bytes]) -> int:
        """Returns how many of the blocks nobody holds yet."""
        return sum(name not in self._holders for name in names)

    def hold(self, names: Iterable[bytes]) -> int:
        """Adds a holder to each block; returns how many had none."""
        fresh = 0
        for name in names:
            count = self._holders.get(name, 0)
            self._holders[name] = count + 1
            fresh += count == 0
        return fresh

    def drop(self, names: Iterable[bytes]) -> int:
        """Takes a holder from each block; returns how many have none now."""
        gone = 0
        for name in names:
            count = self._holders.pop(name)
            if count > 1:
                self._holders[name] = count - 1
            else:
                gone += 1
        return gone
