"""KV memory in the words that gateway, replica and engine share: plain data that crosses processes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from reasonalloc.errors import MethodError
from reasonalloc.methods import NAMED_METHODS, Triple, parse_method

CUSTOM_PARAMS_KEY = "reasonserve"
"""Key under SGLang's ``custom_params`` that carries a ``KvRequest``."""

REPORT_KEY = "reasonserve_kv"
"""Key under SGLang's ``meta_info``: one entry per token, None or what ``KvCounters.updated`` takes."""

HANDSHAKE_KEY = "reasonserve"
"""Key under a scheduler's start-up info that carries a ``Handshake``."""

BUDGET_KEY_PREFIX = "reasonserve.budget:"
"""Before a request's id: key of SGLang's ``set_internal_state`` that carries its new budget to the scheduler."""

SETTINGS_VARIABLE = "REASONSERVE_ENGINE"
"""Environment variable that carries ``EngineSettings`` to the scheduler processes."""

SETTINGS_FILE_MARK = "@"
"""Before the path of a file, where the settings are too long for a variable."""

REQUIRED_SEAMS = (
    "admit",
    "admit-chunk",
    "attention",
    "budgets",
    "decode",
    "handshake",
    "min-p",
    "mixed-attention",
    "mixed-draw",
    "mixed-rounds",
    "pool",
    "positions",
    "prefill",
    "release",
    "repetition",
    "reserved",
    "rounds",
    "seeded-draw",
    "seeds",
)
"""Seams that a scheduler must report before its replica serves."""

Method = str
"""A name of ``METHODS``, or a triple ``layer/head/scorer``."""

PromptModeName = Literal["pinned", "evictable"]

METHODS: tuple[Method, ...] = (*NAMED_METHODS, "full")
"""Methods that have a name; ``triple_of`` takes any triple besides."""

PROMPT_MODES: tuple[PromptModeName, ...] = ("pinned", "evictable")
DEFAULT_BUFFER_TOKENS = 128
MIN_BUDGET_TOKENS = 32


def triple_of(method: Method) -> Triple | None:
    """Returns the choices that a method stands for, or None for ``full``.

    Raises:
        ValueError: There is no such method; says what is allowed and what to do.
    """
    if method == "full":
        return None
    try:
        return parse_method(method)
    except MethodError as error:
        raise ValueError(f"kv.method is not known: {error}; full is no compression.") from None


def check_prompt_mode(method: Method, prompt_mode: PromptModeName) -> None:
    """Checks that a method goes with a prompt mode.

    Raises:
        ValueError: It does not; says what to do.
    """
    if method == "random-pinned" and prompt_mode == "evictable":
        raise ValueError(
            "kv.prompt_mode is evictable, but random-pinned keeps the prompt; leave the mode unset, or use "
            "uniform/uniform/random."
        )


def needs_profile(method: Method) -> bool:
    """Whether a method goes by the active profile.

    Raises:
        ValueError: There is no such method.
    """
    triple = triple_of(method)
    return triple is not None and triple.needs_profile


def offered_methods(profile_parts: Collection[str]) -> tuple[Method, ...]:
    """Returns the named methods of an engine whose profile holds these parts, none where it has no profile."""
    held, triples = frozenset(profile_parts), ((method, triple_of(method)) for method in METHODS)
    return tuple(method for method, triple in triples if triple is None or triple.profile_parts <= held)


@dataclass(frozen=True, kw_only=True, slots=True)
class KvRequest:
    """How one request spends its KV memory.

    Attributes:
        method: One of ``METHODS`` or a triple; ``full`` is no compression.
        budget_tokens: Slots S owned after a round (mean tokens per layer and kv head); 0 when ``full``.
        buffer_tokens: Most tail slots T between rounds.
        prompt_mode: ``pinned`` keeps the prompt whole and shared.
    """

    method: Method
    budget_tokens: int
    buffer_tokens: int = DEFAULT_BUFFER_TOKENS
    prompt_mode: PromptModeName = "pinned"

    def to_custom_params(self) -> dict[str, Any]:
        """Returns the value for SGLang's ``sampling_params["custom_params"]``."""
        return {CUSTOM_PARAMS_KEY: asdict(self)}


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundEvent:
    """One compression round of one request.

    Attributes:
        unix_time_s: When it ran.
        output_tokens: Tokens generated before it.
        kept_cells: Cells kept.
        evicted_cells: Cells evicted.
        seconds: Wall-clock time of the round, shared evenly by the requests that rounded together.
        layer_budgets: Tokens per kv head in each layer, on average. [L]
        head_min: Smallest head budget, in tokens.
        head_max: Largest head budget, in tokens.
    """

    unix_time_s: float
    output_tokens: int
    kept_cells: int
    evicted_cells: int
    seconds: float
    layer_budgets: tuple[float, ...]
    head_min: int
    head_max: int


@dataclass(frozen=True, kw_only=True, slots=True)
class KvCounters:
    """A request's KV memory so far.

    Attributes:
        held_slots: Private slots held now.
        peak_slots: Most private slots held at once.
        rounds: Rounds so far, oldest first.
        squeezes: How often the budget was lowered while the request ran.
        scheduled_unix_s: When the scheduler first ran it; 0 where that is not known.
    """

    held_slots: int = 0
    peak_slots: int = 0
    rounds: tuple[RoundEvent, ...] = ()
    squeezes: int = 0
    scheduled_unix_s: float = 0.0

    def updated(self, step: Mapping[str, Any]) -> KvCounters:
        """Returns the counters after one more token.

        Args:
            step: What the engine attached to the token: ``held``, ``peak``, ``squeezes``, where a round ran before it
                ``round`` in ``asdict`` form, and on the first token ``scheduled``.
        """
        rounds = self.rounds
        if (event := step.get("round")) is not None:
            rounds = (*rounds, RoundEvent(**{**event, "layer_budgets": tuple(event["layer_budgets"])}))
        return KvCounters(
            held_slots=step["held"],
            peak_slots=max(self.peak_slots, step["peak"]),
            rounds=rounds,
            squeezes=step["squeezes"],
            scheduled_unix_s=step.get("scheduled", self.scheduled_unix_s),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Handshake:
    """What a scheduler process says of itself: proof that the plugin is in place.

    Attributes:
        plugin_version: Version of ReasonServe in that process.
        seams: Names of the seams that are applied there.
        num_layers: Layers L of the model.
        num_kv_heads: KV heads H of the model, over all ranks.
        head_dim: Width of a head.
        pool_slots: Slots of the KV pool.
        bytes_per_slot: K and V of one token over all layers and kv heads.
        dtype: Element type of the pool.
        model_fingerprint: Identity of the model for layer profiles.
        profile_id: Layer profile in force; empty when none is loaded.
        methods: Named methods that this engine can honour; of triples it can honour those that need no profile
            it lacks.
        prompt_modes: Prompt modes that this engine can honour.
        kernels: Whether its operators run as Triton kernels.
    """

    plugin_version: str
    seams: tuple[str, ...]
    num_layers: int
    num_kv_heads: int
    head_dim: int
    pool_slots: int
    bytes_per_slot: int
    dtype: str
    model_fingerprint: str
    profile_id: str = ""
    methods: tuple[Method, ...] = ()
    prompt_modes: tuple[PromptModeName, ...] = ()
    kernels: bool = False


def clamp_budget(budget_tokens: int, *, admitted: int) -> int:
    """Returns the budget nearest to the one asked for that a running request may have.

    Args:
        budget_tokens: Budget S asked for.
        admitted: S that the request was admitted with: what is reserved for it, so the most it may grow back to.
    """
    return min(max(budget_tokens, MIN_BUDGET_TOKENS), admitted)
