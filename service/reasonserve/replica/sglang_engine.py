"""The real engine: one ``sglang.Engine`` behind the replica's ``Engine`` protocol."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import psutil

from reasonserve.config import EngineConfig, ServiceConfig
from reasonserve.errors import InvalidRequestError, StartupError, UnavailableError
from reasonserve.kv import (
    BUDGET_KEY_PREFIX,
    HANDSHAKE_KEY,
    REQUIRED_SEAMS,
    SETTINGS_VARIABLE,
    Handshake,
)
from reasonserve.models.fingerprint import fingerprint
from reasonserve.replica.protocol import ChatPrompt, EngineChunk, EngineLoad, EngineRequest, is_output_of
from reasonserve.replica.reasoning import ReasoningSplitter, load_detector, split_chunk, thinking_after
from reasonserve.replica.translate import engine_chunk, sampling_params

_PROMPT_END_TOKENS = 16
"""Enough of a rendered conversation to see whether it ends inside a block of reasoning."""
_STRICT_CHECKS = (
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY",
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE",
    "SGLANG_CHECK_KV_PAGE_INVARIANTS",
)


def create(config: ServiceConfig, model_path: str, profile_json: str | None) -> SglangEngine:
    """Starts SGLang and checks that the plugin is in place.

    Args:
        config: The cluster's configuration.
        model_path: Folder of the model.
        profile_json: Layer profile as uploaded; None serves without layer budgets.

    Raises:
        StartupError: SGLang did not start, or would serve uncompressed.
    """
    check_parsers(config.engine)
    settings = {"model_fingerprint": fingerprint(Path(model_path)), "profile_json": profile_json or ""}
    environment = {
        SETTINGS_VARIABLE: json.dumps(settings),
        "OMP_NUM_THREADS": str(cpu_threads(config)),
        # torch.distributed's own store of keys would listen on every interface.
        "SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE": f"file://{tempfile.mkdtemp(prefix='reasonserve-')}/rendezvous",
    }
    if config.engine.strict_checks:
        environment |= dict.fromkeys(_STRICT_CHECKS, "1")
    os.environ.update(environment)
    import sglang

    try:
        with _without_signal_handlers():
            engine = sglang.Engine(**engine_arguments(config.engine, model_path))
    except (Exception, SystemExit) as error:
        raise StartupError(f"SGLang did not start: {error}. The replica's log has the whole story.") from error
    info = engine._scheduler_init_result.scheduler_infos[0]
    try:
        return SglangEngine(engine, check_handshake(info.get(HANDSHAKE_KEY)), config.engine)
    except StartupError:
        engine.shutdown()
        raise


def check_parsers(config: EngineConfig) -> None:
    """Returns if what the configuration names for grammars and reasoning is there.

    Raises:
        StartupError: It is not.
    """
    if config.grammar_backend != "none" and find_spec(config.grammar_backend) is None:
        raise StartupError(
            f"engine.grammar_backend is {config.grammar_backend!r} and that package is not installed. Install it, or "
            "set engine.grammar_backend to none: requests with a grammar are refused then."
        )
    if config.reasoning_parser:
        load_detector(config.reasoning_parser)


def cpu_threads(config: ServiceConfig) -> int:
    """Returns the threads of one engine: this machine's cores shared by its replicas.

    Ray allows an actor as many OpenMP threads as it sets CPUs aside for it, which is about placement and not speed.
    """
    return max(1, len(os.sched_getaffinity(0)) // config.replicas.most)


def engine_arguments(config: EngineConfig, model_path: str) -> dict[str, Any]:
    """Returns SGLang's arguments for a configuration."""
    return {
        "model_path": model_path,
        "dtype": config.dtype,
        "device": "cpu",
        "prefill_attention_backend": "torch_native",
        "decode_attention_backend": "reasonalloc",
        "grammar_backend": config.grammar_backend,
        "reasoning_parser": config.reasoning_parser,
        "sampling_backend": "pytorch",  # the others refuse seeds
        "page_size": 1,
        "max_total_tokens": config.pool_slots,
        "context_length": config.context_length,
        "random_seed": config.random_seed,
        "skip_server_warmup": True,
        "sleep_on_idle": True,
        "incremental_streaming_output": True,
        "enable_cache_report": True,
        "load_snapshot_publish_interval": 4,
        "log_level": "warning",
    }


def check_handshake(data: Mapping[str, Any] | None) -> Handshake:
    """Rebuilds a scheduler's handshake.

    Raises:
        StartupError: There is none, or seams are missing from it.
    """
    if data is None:
        raise StartupError(
            "SGLang started without ReasonServe's plugin and would serve uncompressed. Unset SGLANG_PLUGINS, or add "
            "'reasonserve' to it, and see that this Python has reasonserve installed."
        )
    lists = {key: tuple(data[key]) for key in ("seams", "methods", "prompt_modes")}
    handshake = Handshake(**{**data, **lists})
    if missing := sorted(set(REQUIRED_SEAMS) - set(handshake.seams)):
        raise StartupError(
            f"SGLang applied the seams {', '.join(handshake.seams)} but not {', '.join(missing)}: this SGLang release "
            "does not fit. Install the release that the lock file names."
        )
    return handshake


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
        return ChatPrompt(list(ids), thinking_after(end, self._detector, variables))

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
            require_reasoning=self._detector is not None and request.thinking != "off",
            rid=request.request_id,
            cache_salt=request.cache_salt or None,
            stream=True,
        )
        return stream

    def _splitter(self, request: EngineRequest) -> ReasoningSplitter | None:
        if self._detector is None or not request.separate_reasoning:
            return None
        return ReasoningSplitter(self.reasoning_parser, request.thinking, self._tokenizer)

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


@contextmanager
def _without_signal_handlers() -> Iterator[None]:
    """Keeps SGLang from installing handlers: a Serve replica runs this off the main thread, where that raises."""
    install = signal.signal
    signal.signal = lambda *_: None
    try:
        yield
    finally:
        signal.signal = install
