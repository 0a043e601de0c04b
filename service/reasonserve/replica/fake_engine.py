"""A deterministic engine without a model, for tests of the service around it.

Tokens are the bytes of UTF-8. The answer to a prompt is the prompt over and over. KV figures follow the
formulas of a real engine: a request holds its prompt and what it generated, up to budget and buffer, and
a round brings it back to its budget.

The prompt tells the engine how to misbehave: ``!slow`` takes ``SLOW_TOKEN_S`` a token, ``!raise`` raises an error
that nobody expects, ``!die`` ends the engine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reasonalloc.methods import PROFILE_PARTS
from reasonserve.config import ServiceConfig
from reasonserve.errors import UnavailableError
from reasonserve.kv import PROMPT_MODES, Handshake, KvCounters, KvRequest, RoundEvent, clamp_budget, offered_methods
from reasonserve.replica.protocol import ChatPrompt, EngineChunk, EngineLoad, EngineRequest, is_output_of

LAYERS, HEADS, HEAD_DIM = 2, 2, 8
SLOW_TOKEN_S = 0.02
SECRET = "a message that must not reach any client"


def create(config: ServiceConfig, model_path: str, profile_json: str | None) -> FakeEngine:
    """Makes the engine; ``model_path`` is not read."""
    return FakeEngine(pool_slots=config.engine.pool_slots or 16384, has_profile=profile_json is not None)


class FakeEngine:
    """See the module.

    Args:
        pool_slots: Slots of the pool it claims to have.
        has_profile: Whether it can honour ``reasonalloc``.
        context_length: Most tokens of prompt and output together.
    """

    def __init__(self, *, pool_slots: int = 16384, has_profile: bool = True, context_length: int = 4096) -> None:
        self._context_length = context_length
        self._alive = True
        self.running: dict[str, int] = {}
        self._caches: dict[str, _Cache] = {}
        self._handshake = Handshake(
            plugin_version="fake",
            seams=(),
            num_layers=LAYERS,
            num_kv_heads=HEADS,
            head_dim=HEAD_DIM,
            pool_slots=pool_slots,
            bytes_per_slot=2 * LAYERS * HEADS * HEAD_DIM * 4,
            dtype="float32",
            model_fingerprint="0" * 16,
            profile_id="fake-profile" if has_profile else "",
            prompt_modes=PROMPT_MODES,
            methods=offered_methods(PROFILE_PARTS if has_profile else ()),
        )

    @property
    def handshake(self) -> Handshake:
        """See ``Engine``."""
        return self._handshake

    @property
    def context_length(self) -> int:
        """See ``Engine``."""
        return self._context_length

    @property
    def vocab_size(self) -> int:
        """See ``Engine``."""
        return 256

    def encode(self, text: str) -> list[int]:
        """Returns the bytes of the text."""
        return list(text.encode())

    @property
    def grammar_backend(self) -> str:
        """See ``Engine``."""
        return ""

    @property
    def reasoning_parser(self) -> str:
        """See ``Engine``."""
        return ""

    @property
    def has_chat_template(self) -> bool:
        """See ``Engine``."""
        return True

    def encode_chat(self, messages: Sequence[Mapping[str, str]], variables: Mapping[str, Any]) -> ChatPrompt:
        """Returns the bytes of the messages, one to a line."""
        return ChatPrompt(self.encode("\n".join(f"{m['role']}: {m['content']}" for m in messages)))

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineChunk, None]:
        """Yields one token at a time; see ``Engine``."""
        await self.check_health()
        prompt = bytes(request.input_ids)
        kv = self._caches[request.request_id] = _Cache(request.kv, prompt_tokens=len(prompt))
        try:
            for index in range(request.sampling.max_new_tokens):
                await asyncio.sleep(SLOW_TOKEN_S if b"!slow" in prompt else 0)
                self._misbehave(prompt)
                token = prompt[index % len(prompt)]
                self.running[request.request_id] = kv.append(index)
                last = index + 1 == request.sampling.max_new_tokens
                yield EngineChunk(
                    text=chr(token),
                    token_ids=(token,),
                    finish_reason="length" if last else "",
                    input_tokens=len(prompt),
                    output_tokens=index + 1,
                    kv=kv.counters(),
                )
        finally:
            self.running.pop(request.request_id, None)
            self._caches.pop(request.request_id, None)

    def _misbehave(self, prompt: bytes) -> None:
        if b"!raise" in prompt:
            raise RuntimeError(SECRET)
        if b"!die" in prompt:
            self.shutdown()
        if not self._alive:
            raise UnavailableError("The engine died; retry.")

    async def set_budget(self, request_id: str, budget_tokens: int) -> bool:
        """Takes effect with the request's next token; see ``Engine``."""
        await self.check_health()
        caches = [cache for rid, cache in self._caches.items() if is_output_of(rid, request_id)]
        return sum(cache.set_budget(budget_tokens) for cache in caches) > 0

    async def set_budgets(self, budgets: Mapping[str, int]) -> bool:
        """See ``Engine``."""
        return all([await self.set_budget(request_id, budget) for request_id, budget in budgets.items()])

    async def load(self) -> EngineLoad:
        """See ``Engine``."""
        await self.check_health()
        return EngineLoad(used_slots=sum(self.running.values()))

    async def check_health(self) -> None:
        """See ``Engine``."""
        if not self._alive:
            raise UnavailableError("The engine died; retry.")

    def shutdown(self) -> None:
        """See ``Engine``."""
        self._alive = False


@dataclass(slots=True)
class _Cache:
    """One request's KV memory."""

    kv: KvRequest
    prompt_tokens: int
    held: int = 0
    peak: int = 0
    budget: int = 0
    settled: int = 0
    squeezes: int = 0
    rounds: list[RoundEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.held = self.peak = self.prompt_tokens
        self.budget = self.settled = self.kv.budget_tokens

    def set_budget(self, budget_tokens: int) -> bool:
        """Sets the budget within its range; False for a request without one."""
        if self.kv.method == "full":
            return False
        budget = clamp_budget(budget_tokens, admitted=self.kv.budget_tokens)
        self.squeezes += budget < self.budget
        self.budget, self.settled = budget, max(budget, self.settled)
        return True

    def counters(self) -> KvCounters:
        """Returns the figures so far."""
        return KvCounters(held_slots=self.held, peak_slots=self.peak, rounds=tuple(self.rounds), squeezes=self.squeezes)

    def append(self, output_tokens: int) -> int:
        """Makes room for one more token, with a round if the tail is full; returns what is held then."""
        budget = self.budget
        fixed = self.prompt_tokens if self.kv.prompt_mode == "pinned" else 0
        tail = self.held - (fixed if self.rounds else self.prompt_tokens) - budget
        due = tail > 0 if budget < self.settled else tail >= self.kv.buffer_tokens
        self.settled = budget
        if self.kv.method != "full" and due:
            cells = LAYERS * HEADS
            self.rounds.append(
                RoundEvent(
                    unix_time_s=time.time(),
                    output_tokens=output_tokens,
                    kept_cells=budget * cells,
                    evicted_cells=(self.held - fixed - budget) * cells,
                    seconds=0.0,
                    layer_budgets=(float(budget),) * LAYERS,
                    head_min=budget,
                    head_max=budget,
                )
            )
            self.held = fixed + budget
        self.held += 1
        self.peak = max(self.peak, self.held)
        return self.held
