"""The engine as a replica sees it. `SglangEngine` is the real one; `FakeEngine` is for service unit tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from reasonserve.kv import Handshake, KvCounters, KvRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Sampling options with every default resolved.

    Attributes:
        temperature: 0 is greedy.
        top_p: Nucleus mass in (0, 1].
        top_k: Most probable tokens kept; -1 is no limit.
        max_new_tokens: Most tokens generated.
        stop: Strings that end generation; not part of the output.
        seed: Seed of the request's random stream; None is not reproducible.
        ignore_eos: Generate past the end-of-sequence token.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    max_new_tokens: int = 128
    stop: tuple[str, ...] = ()
    seed: int | None = None
    ignore_eos: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineRequest:
    """A request that was admitted.

    Attributes:
        request_id: Unique over the replica.
        input_ids: Prompt token ids, at least one.
        sampling: Sampling options.
        kv: How the request spends its KV memory.
        cache_salt: Keeps tenants' prefix caches apart; requests with different salts never share entries.
    """

    request_id: str
    input_ids: tuple[int, ...]
    sampling: Sampling
    kv: KvRequest
    cache_salt: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineChunk:
    """New output since the chunk before.

    Attributes:
        text: New text.
        token_ids: New token ids.
        finish_reason: "stop" or "length" on the last chunk, else "".
        input_tokens: Tokens of the prompt.
        cached_tokens: Prompt tokens found in the prefix cache.
        output_tokens: Tokens generated so far.
        kv: KV memory so far.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    kv: KvCounters = field(default_factory=KvCounters)


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineLoad:
    """How full the engine is.

    Attributes:
        used_slots: Slots that running requests hold; what the prefix cache would give up is not counted.
    """

    used_slots: int


class Engine(Protocol):
    """One model on one set of devices."""

    @property
    def handshake(self) -> Handshake:
        """What the scheduler process said at start-up."""

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and output together."""

    @property
    def vocab_size(self) -> int:
        """Token ids lie in [0, vocab_size)."""

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of raw text."""

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Returns the token ids of messages under the model's chat template.

        Raises:
            InvalidRequestError: The model has no chat template, or the template refuses the messages.
        """

    def generate(self, request: EngineRequest) -> AsyncGenerator[EngineChunk, None]:
        """Yields the output as it grows; the last chunk has a finish reason.

        Closing the generator, or cancelling the task that runs it, aborts the request in the engine.

        Raises:
            UnavailableError: The engine died.
            InvalidRequestError: The engine refused the request.
        """

    async def set_budget(self, request_id: str, budget_tokens: int) -> bool:
        """Sets the KV budget S of a running request, between ``MIN_BUDGET_TOKENS`` and the S it was admitted with.

        A lower budget is a *squeeze*: the surplus slots go back to the engine's pool as soon as a round can run,
        which takes at most a scoring window of further tokens. A higher one lets the request grow back; values
        outside the range are moved to its nearest end.

        Args:
            request_id: The request.
            budget_tokens: Its new budget S.

        Returns:
            Whether a bounded request of that id runs here. False is no error: it may just have finished.

        Raises:
            UnavailableError: The engine died.
        """

    async def load(self) -> EngineLoad:
        """Returns how full the engine is.

        Raises:
            UnavailableError: The engine died.
        """

    async def check_health(self) -> None:
        """Returns if every process of the engine is alive.

        Raises:
            UnavailableError: One is not.
        """

    def shutdown(self) -> None:
        """Ends every process of the engine."""
