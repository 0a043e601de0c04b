"""The engine as a replica sees it. `SglangEngine` is the real one; `FakeEngine` is for service unit tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from reasonserve.kv import Handshake, KvCounters, KvRequest

GrammarKind = Literal["json_schema", "regex", "ebnf"]


class Grammar(NamedTuple):
    """What an output must match.

    Attributes:
        kind: How it is written.
        text: The grammar.
    """

    kind: GrammarKind
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Sampling options with every default resolved.

    Attributes:
        temperature: 0 is greedy.
        top_p: Nucleus mass in (0, 1].
        top_k: Most probable tokens kept; -1 is no limit.
        min_p: Least probability kept, as a share of the largest; 0 is no limit.
        frequency_penalty: Taken from a token's logit for each time that it was generated.
        presence_penalty: Taken from the logit of every token that was generated.
        repetition_penalty: Divides positive logits, multiplies negative ones, of tokens seen; 1 is none.
        max_new_tokens: Most tokens generated.
        min_new_tokens: Nothing but ``max_new_tokens`` ends generation before this many.
        stop: Strings that end generation; not part of the output.
        stop_token_ids: Tokens that end generation; not part of the text.
        logit_bias: Added to logits, as (token id, bias).
        seed: Seed of the request's random stream; None is not reproducible.
        ignore_eos: Generate past the end-of-sequence token.
        top_logprobs: Log-probabilities reported beside each generated token's; None reports none at all.
        grammar: What the output must match.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 128
    min_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    ignore_eos: bool = False
    top_logprobs: int | None = None
    grammar: Grammar | None = None


class ChatPrompt(NamedTuple):
    """A rendered conversation.

    Attributes:
        ids: Token ids.
        in_reasoning: Whether its end has opened a block of reasoning.
    """

    ids: list[int]
    in_reasoning: bool = False


class TokenChance(NamedTuple):
    """A token and how probable it was.

    Attributes:
        token_id: The token.
        text: Its text.
        logprob: Natural logarithm of its probability.
    """

    token_id: int
    text: str
    logprob: float


class TokenLogprob(NamedTuple):
    """Log-probabilities at one place of the output.

    Attributes:
        token: The token that was generated.
        top: The most probable tokens there, best first.
    """

    token: TokenChance
    top: tuple[TokenChance, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineRequest:
    """A request that was admitted.

    Attributes:
        request_id: Unique over the replica.
        input_ids: Prompt token ids, at least one.
        sampling: Sampling options.
        kv: How the request spends its KV memory.
        cache_salt: Keeps tenants' prefix caches apart; requests with different salts never share entries.
        is_guaranteed: Whether it starts before requests whose slots are on loan.
        separate_reasoning: Whether the reasoning parser, where there is one, splits the text.
        in_reasoning: Whether the prompt has opened a block of reasoning; a grammar binds what follows the block then.
    """

    request_id: str
    input_ids: tuple[int, ...]
    sampling: Sampling
    kv: KvRequest
    cache_salt: str = ""
    is_guaranteed: bool = False
    separate_reasoning: bool = False
    in_reasoning: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineChunk:
    """New output since the chunk before.

    Attributes:
        text: New text.
        token_ids: New token ids.
        reasoning: New text before the answer, where reasoning is separated.
        logprobs: One for each new token, if asked for.
        finish_reason: "stop" or "length" on the last chunk, else "".
        matched_stop: Stop string or stop token id that ended it, on the last chunk.
        input_tokens: Tokens of the prompt.
        cached_tokens: Prompt tokens found in the prefix cache.
        output_tokens: Tokens generated so far.
        reasoning_tokens: Those of them that are reasoning.
        retractions: Times that the engine took the request's memory back so far and started it over.
        kv: KV memory so far.
    """

    text: str
    token_ids: tuple[int, ...]
    reasoning: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: str = ""
    matched_stop: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    retractions: int = 0
    kv: KvCounters = field(default_factory=KvCounters)


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineLoad:
    """How full the engine is.

    Attributes:
        used_slots: Slots that running requests hold; what the prefix cache would give up is not counted.
    """

    used_slots: int


def output_id(request_id: str, index: int, num_outputs: int) -> str:
    """Returns the engine's id of one output of a request. None is a prefix of another: SGLang aborts by prefix."""
    return request_id if num_outputs == 1 else f"{request_id}.{index:02d}"


def is_output_of(engine_id: str, request_id: str) -> bool:
    """Whether an id in the engine is that of an output of a request."""
    return engine_id.rpartition(".")[0] == request_id or engine_id == request_id


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

    @property
    def grammar_backend(self) -> str:
        """What enforces grammars; empty when nothing does."""

    @property
    def reasoning_parser(self) -> str:
        """What separates reasoning from the answer; empty when nothing does."""

    @property
    def has_chat_template(self) -> bool:
        """Whether ``encode_chat`` can work."""

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of raw text."""

    def encode_chat(self, messages: Sequence[Mapping[str, str]], variables: Mapping[str, Any]) -> ChatPrompt:
        """Renders messages by the model's chat template, with variables for it.

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
            request_id: The request, as its caller knows it; see ``output_id``.
            budget_tokens: The new budget S of each of its outputs.

        Returns:
            Whether a bounded request of that id runs here. False is no error: it may just have finished.

        Raises:
            UnavailableError: The engine died.
        """

    async def set_budgets(self, budgets: Mapping[str, int]) -> bool:
        """Sets the budgets of several running requests between the same two steps; see ``set_budget``.

        Args:
            budgets: New budgets S by request id.

        Returns:
            Whether bounded requests of all these ids run here; of those that do, the budgets are set in any case.

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
