"""The real engine: one ``sglang.Engine`` behind the replica's ``Engine`` protocol."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from inspect import signature
from typing import Any

import psutil

from reasonserve.config import EngineConfig, ServiceConfig
from reasonserve.errors import InvalidRequestError, StartupError, UnavailableError
from reasonserve.kv import BUDGET_KEY_PREFIX, HANDSHAKE_KEY, Handshake
from reasonserve.replica.launch import (
    check_handshake,
    check_parsers,
    engine_arguments,
    node_environment,
    without_signal_handlers,
)
from reasonserve.replica.protocol import ChatPrompt, EngineChunk, EngineLoad, EngineRequest, is_output_of
from reasonserve.replica.reasoning import ReasoningSplitter, load_detector, opens_reasoning, split_chunk
from reasonserve.replica.translate import engine_chunk, sampling_params

_PROMPT_END_TOKENS = 16
"""Enough of a rendered conversation to see whether it ends inside a block of reasoning."""


def create(
    config: ServiceConfig, model_path: str, profile_json: str | None, *, arguments: Mapping[str, Any] | None = None
) -> SglangEngine:
    """Starts SGLang and checks that the plugin is in place.

    Args:
        config: The cluster's configuration.
        model_path: Folder of the model.
        profile_json: Layer profile as uploaded; None serves without layer budgets.
        arguments: Arguments of SGLang's over those of the configuration, for comparisons.

    Raises:
        StartupError: SGLang did not start, or would serve uncompressed.
    """
    check_parsers(config.engine)
    os.environ.update(node_environment(config, model_path, profile_json))
    import sglang

    try:
        with without_signal_handlers():
            engine = sglang.Engine(**engine_arguments(config.engine, model_path) | dict(arguments or {}))
    except (Exception, SystemExit) as error:
        raise StartupError(f"SGLang did not start: {error}. The replica's log has the whole story.") from error
    info = engine._scheduler_init_result.scheduler_infos[0]
    try:
        return SglangEngine(engine, check_handshake(info.get(HANDSHAKE_KEY)), config.engine)
    except StartupError:
        engine.shutdown()
        raise


class SglangEngine:
    """One ``sglang.Engine``; its processes are children of this one."""

    def __init__(self, engine: Any, handshake: Handshake, config: EngineConfig) -> None:
        self._engine = engine
        self._config = config
        self._detector = load_detector(config.reasoning_parser) if config.reasoning_parser else None
        self._manager = engine.tokenizer_manager
        self._tokenizer = engine.tokenizer_manager.tokenizer
        self._template_options = signature(self._tokenizer.apply_chat_template).parameters.keys()
        self._handshake = handshake
        self._children = [psutil.Process(pid) for pid in engine.get_all_child_pids()]

    @property
    def handshake(self) -> Handshake:
        """What the scheduler process said at start-up."""
        return self._handshake

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and output together."""
        return int(self._manager.model_config.context_len)

    @property
    def vocab_size(self) -> int:
        """Token ids lie in [0, vocab_size)."""
        return int(self._manager.model_config.vocab_size)

    @property
    def grammar_backend(self) -> str:
        """What enforces grammars; empty when nothing does."""
        return "" if self._config.grammar_backend == "none" else self._config.grammar_backend

    @property
    def reasoning_parser(self) -> str:
        """What separates reasoning from the answer; empty when nothing does."""
        return self._config.reasoning_parser or ""

    @property
    def has_chat_template(self) -> bool:
        """Whether ``encode_chat`` can work."""
        return bool(self._tokenizer.chat_template)

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of raw text."""
        return list(self._tokenizer.encode(text))

    def encode_chat(self, messages: Sequence[Mapping[str, str]], variables: Mapping[str, Any]) -> ChatPrompt:
        """Renders messages by the model's chat template."""
        if not self.has_chat_template:
            raise InvalidRequestError("The model has no chat template; send 'prompt' or 'tokens'.", field="chat")
        if taken := sorted(variables.keys() & self._template_options):
            raise InvalidRequestError(
                f"chat.template_variables has {', '.join(taken)}, which the service sets itself; leave it out.",
                field="chat.template_variables",
            )
        try:
            ids = self._tokenizer.apply_chat_template(
                [dict(m) for m in messages],
                tokenize=True,
                add_generation_prompt=True,
                return_dict=False,
                **variables,
            )
        except Exception as error:  # templates raise whatever their Jinja code raises
            raise InvalidRequestError(
                f"The model's chat template refuses these messages: {error}", field="chat.messages"
            ) from error
        if self._detector is None:
            return ChatPrompt(list(ids))
        end = self._tokenizer.decode(ids[-_PROMPT_END_TOKENS:])
        return ChatPrompt(list(ids), opens_reasoning(end, self._detector))

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineChunk, None]:
        """Yields the output as it grows; closing the generator aborts the request in the engine."""
        finished = False
        chunk = EngineChunk(text="", token_ids=())
        splitter = self._splitter(request)
        stream = await self._submit(request)
        try:
            async for output in stream:
                chunk = engine_chunk(output, chunk, request, self._text_of)
                finished = chunk.finish_reason != ""
                if splitter is not None:
                    chunk = split_chunk(splitter, chunk)
                yield chunk
        except ValueError as error:
            finished = True
            raise InvalidRequestError(f"The engine refuses the request: {error}") from error
        finally:
            if not finished:
                self._manager.abort_request(rid=request.request_id)

    async def _submit(self, request: EngineRequest) -> AsyncIterator[Mapping[str, Any]]:
        top_logprobs = request.sampling.top_logprobs
        stream: AsyncIterator[Mapping[str, Any]] = await self._engine.async_generate(
            input_ids=list(request.input_ids),
            sampling_params=sampling_params(request),
            return_logprob=top_logprobs is not None,
            top_logprobs_num=top_logprobs or 0,
            require_reasoning=request.in_reasoning,
            rid=request.request_id,
            cache_salt=request.cache_salt or None,
            priority=int(request.is_guaranteed),
            stream=True,
        )
        return stream

    def _splitter(self, request: EngineRequest) -> ReasoningSplitter | None:
        if self._detector is None or not request.separate_reasoning:
            return None
        return ReasoningSplitter(self.reasoning_parser, request.in_reasoning, self._tokenizer)

    def _text_of(self, token_id: int) -> str:
        return str(self._tokenizer.decode([token_id]))

    async def set_budget(self, request_id: str, budget_tokens: int) -> bool:
        """Sets the budget of a running request; see ``Engine``."""
        return await self.set_budgets({request_id: budget_tokens})

    async def set_budgets(self, budgets: Mapping[str, int]) -> bool:
        """Sets the budgets of running requests, in one message over the way that requests take; see ``Engine``."""
        from sglang.srt.managers.io_struct import SetInternalStateReq

        await self.check_health()
        running = {r: [rid for rid in self._manager.rid_to_state if is_output_of(rid, r)] for r in budgets}
        change = {BUDGET_KEY_PREFIX + rid: budgets[r] for r, outputs in running.items() for rid in outputs}
        if not change:
            return False
        # SGLang's reply belongs to the oldest call, so a caller that gives up must not leave one behind.
        taken = await asyncio.shield(self._manager.set_internal_state(SetInternalStateReq(server_args=change)))
        return all(running.values()) and any(taken)

    async def load(self) -> EngineLoad:
        """Returns how full the engine is, as its scheduler last published it."""
        await self.check_health()
        loads = await self._manager.get_loads(include=["core"])
        return EngineLoad(used_slots=sum(load.num_used_tokens for load in loads))

    async def check_health(self) -> None:
        """Returns if every process of the engine is alive."""
        for child in self._children:
            if not child.is_running() or child.status() == psutil.STATUS_ZOMBIE:
                raise UnavailableError("A process of the engine has died; the replica is being replaced.")

    def shutdown(self) -> None:
        """Ends every process of the engine."""
        self._engine.shutdown()
