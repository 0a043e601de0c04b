"""An engine that makes tokens for nothing, so that what is measured is the way to it and back.

The prompt says how fast: ``pace 10`` makes one token in 10 ms, anything else as fast as they are taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from reasonserve.config import ServiceConfig
from reasonserve.replica.fake_engine import FakeEngine
from reasonserve.replica.protocol import EngineChunk, EngineRequest

PACE = b"pace "


def create(config: ServiceConfig, model_path: str, profile_json: str | None) -> NoopEngine:
    """Makes the engine; ``model_path`` is not read."""
    return NoopEngine(pool_slots=config.engine.pool_slots or 16384, has_profile=profile_json is not None)


def pace_s(prompt: bytes) -> float:
    """Returns the seconds between two tokens that a prompt asks for."""
    return int(prompt.removeprefix(PACE)) / 1000 if prompt.startswith(PACE) else 0.0


class NoopEngine(FakeEngine):
    """See the module."""

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineChunk, None]:
        """Yields one token at a time; see ``Engine``."""
        prompt, total = bytes(request.input_ids), request.sampling.max_new_tokens
        pause_s = pace_s(prompt)
        for made in range(1, total + 1):
            await asyncio.sleep(pause_s)
            yield EngineChunk(
                text="x",
                token_ids=(120,),
                finish_reason="length" if made == total else "",
                input_tokens=len(prompt),
                output_tokens=made,
            )
