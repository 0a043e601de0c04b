"""How SGLang is started: what it is told, and what must be in place before its engine may serve."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reasonserve.config import EngineConfig, ServiceConfig
from reasonserve.errors import StartupError
from reasonserve.kv import REQUIRED_SEAMS, SETTINGS_FILE_MARK, SETTINGS_VARIABLE, Handshake
from reasonserve.models.fingerprint import fingerprint
from reasonserve.replica.reasoning import load_detector

_STRICT_CHECKS = (
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY",
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE",
    "SGLANG_CHECK_KV_PAGE_INVARIANTS",
)


MAX_VARIABLE = 100_000
"""Longest settings that travel in a variable; Linux starts no process with one of 128 KiB."""


def node_environment(config: ServiceConfig, model_path: str, profile_json: str | None) -> dict[str, str]:
    """Returns the variables that SGLang's processes must find."""
    settings = json.dumps(
        {
            "model_fingerprint": fingerprint(Path(model_path)),
            "profile_json": profile_json or "",
            "table_cells": config.engine.table_cells,
            "allow_unproven_device": config.engine.allow_unproven_device,
        }
    )
    folder = Path(tempfile.mkdtemp(prefix="reasonserve-"))
    if len(settings) > MAX_VARIABLE:
        (folder / "settings.json").write_text(settings)
        settings = f"{SETTINGS_FILE_MARK}{folder / 'settings.json'}"
    environment = {
        SETTINGS_VARIABLE: settings,
        "OMP_NUM_THREADS": str(cpu_threads(config)),
        # torch.distributed's own store of keys would listen on every interface.
        "SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE": f"file://{folder}/rendezvous",
    }
    if config.engine.strict_checks:
        environment |= dict.fromkeys(_STRICT_CHECKS, "1")
    return environment


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
    # On a GPU, prefill is up to the backend that SGLang chooses for it.
    prefill = {"prefill_attention_backend": "torch_native"} if config.device == "cpu" else {}
    return prefill | {
        "model_path": model_path,
        "dtype": config.dtype,
        "device": config.device,
        "decode_attention_backend": "reasonalloc",
        "grammar_backend": config.grammar_backend,
        "reasoning_parser": config.reasoning_parser,
        "sampling_backend": "pytorch",  # the others refuse seeds
        "page_size": 1,
        "max_total_tokens": config.pool_slots,
        "chunked_prefill_size": config.prefill_chunk_tokens,
        "enable_mixed_chunk": config.mixed_chunks,
        "context_length": config.context_length,
        "random_seed": config.random_seed,
        "skip_server_warmup": True,
        "sleep_on_idle": True,
        "incremental_streaming_output": True,
        "enable_cache_report": True,
        "load_snapshot_publish_interval": 4,
        # What is guaranteed starts before loans; nothing that runs is retracted for it, admission has made the room.
        "enable_priority_scheduling": True,
        "disable_priority_preemption": True,
        "default_priority_value": 0,
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


@contextmanager
def without_signal_handlers() -> Iterator[None]:
    """Keeps SGLang from installing handlers: a Serve replica runs this off the main thread, where that raises."""
    install = signal.signal
    signal.signal = lambda *_: None
    try:
        yield
    finally:
        signal.signal = install
