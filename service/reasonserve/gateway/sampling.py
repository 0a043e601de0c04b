"""Sampling options from the wire: every value is held against what the contract allows. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.errors import InvalidRequestError
from reasonserve.replica.protocol import Grammar, GrammarKind, Sampling

MAX_STOPS = 16
MAX_OUTPUTS = 8
MAX_TOP_LOGPROBS = 20
MAX_BIASED_TOKENS = 300
MAX_LOGIT_BIAS = 100.0
MAX_GRAMMAR_BYTES = 65536

_GRAMMARS: tuple[GrammarKind, ...] = ("json_schema", "regex", "ebnf")


class Bound(NamedTuple):
    """What a number may be.

    Attributes:
        allows: Whether it may be this; no comparison allows NaN.
        remedy: The same in words.
    """

    allows: Callable[[float], bool]
    remedy: str


BOUNDS: dict[str, Bound] = {
    "temperature": Bound(lambda x: 0 <= x <= 2, "use a number in [0, 2]"),
    "top_p": Bound(lambda x: 0 < x <= 1, "use a number in (0, 1]"),
    "top_k": Bound(lambda x: x >= 1, "use at least 1, or leave it unset for no limit"),
    "min_p": Bound(lambda x: 0 <= x <= 1, "use a number in [0, 1]"),
    "frequency_penalty": Bound(lambda x: -2 <= x <= 2, "use a number in [-2, 2]"),
    "presence_penalty": Bound(lambda x: -2 <= x <= 2, "use a number in [-2, 2]"),
    "repetition_penalty": Bound(lambda x: 0 < x <= 2, "use a number in (0, 2]; 1 is no penalty"),
    "max_new_tokens": Bound(lambda x: x >= 1, "use at least 1"),
    "min_new_tokens": Bound(lambda x: x >= 0, "use 0 or more"),
    "num_outputs": Bound(lambda x: 1 <= x <= MAX_OUTPUTS, f"use a whole number in [1, {MAX_OUTPUTS}]"),
    "top_logprobs": Bound(lambda x: 0 <= x <= MAX_TOP_LOGPROBS, f"use a whole number in [0, {MAX_TOP_LOGPROBS}]"),
}
"""Every optional number of the contract but the seed, which may be any."""


def fault(field: str, given: object, remedy: str) -> InvalidRequestError:
    """Returns the refusal of a field's value."""
    return InvalidRequestError(f"{field} is {given}; {remedy}.", field=field)


def parse_sampling(options: pb.SamplingOptions) -> Sampling:
    """Returns the options with defaults filled in.

    Raises:
        InvalidRequestError: Names the field, what was given and what is allowed.
    """
    given = {field.name: value for field, value in options.ListFields()}
    numbers = {name: given[name] for name in BOUNDS if name in given}
    for name, value in numbers.items():
        if not BOUNDS[name].allows(value):
            raise fault(f"sampling.{name}", value, BOUNDS[name].remedy)
    numbers.pop("num_outputs", None)
    sampling = Sampling(
        **numbers,
        stop=_stop_strings(options),
        stop_token_ids=_stop_tokens(options),
        logit_bias=_logit_bias(options),
        seed=given.get("seed"),
        ignore_eos=options.ignore_eos,
        grammar=_grammar(options),
    )
    if sampling.min_new_tokens > sampling.max_new_tokens:
        remedy = f"max_new_tokens is {sampling.max_new_tokens}; use at most that"
        raise fault("sampling.min_new_tokens", sampling.min_new_tokens, remedy)
    return sampling


def num_outputs(options: pb.SamplingOptions) -> int:
    """Returns how many outputs are asked for; ``parse_sampling`` has checked it."""
    return options.num_outputs if options.HasField("num_outputs") else 1


def _stop_strings(options: pb.SamplingOptions) -> tuple[str, ...]:
    if len(options.stop) > MAX_STOPS:
        raise fault("sampling.stop", f"{len(options.stop)} strings", f"use at most {MAX_STOPS}")
    if "" in options.stop:
        raise fault(f"sampling.stop[{list(options.stop).index('')}]", "empty", "use at least one character")
    return tuple(options.stop)


def _stop_tokens(options: pb.SamplingOptions) -> tuple[int, ...]:
    if len(options.stop_token_ids) > MAX_STOPS:
        raise fault("sampling.stop_token_ids", f"{len(options.stop_token_ids)} ids", f"use at most {MAX_STOPS}")
    if options.stop_token_ids and options.ignore_eos:
        raise fault("sampling.stop_token_ids", "given with ignore_eos, which lets no token end the output", "use one")
    return tuple(options.stop_token_ids)


def _logit_bias(options: pb.SamplingOptions) -> tuple[tuple[int, float], ...]:
    if len(options.logit_bias) > MAX_BIASED_TOKENS:
        raise fault("sampling.logit_bias", f"{len(options.logit_bias)} tokens", f"use at most {MAX_BIASED_TOKENS}")
    for token_id, bias in options.logit_bias.items():
        if not -MAX_LOGIT_BIAS <= bias <= MAX_LOGIT_BIAS:
            raise fault(f"sampling.logit_bias[{token_id}]", bias, "use a number in [-100, 100]")
    return tuple(sorted(options.logit_bias.items()))


def _grammar(options: pb.SamplingOptions) -> Grammar | None:
    kind = options.WhichOneof("grammar")
    if kind is None:
        return None
    text: str = getattr(options, kind)
    field = f"sampling.{kind}"
    if not text.strip():
        raise fault(field, "empty", "leave it unset for no grammar")
    if "\0" in text:
        raise fault(field, "a text with a NUL character", "remove it")
    if (size := len(text.encode())) > MAX_GRAMMAR_BYTES:
        raise fault(field, f"{size} bytes long", f"use at most {MAX_GRAMMAR_BYTES}")
    if kind == "json_schema":
        _check_schema(text, field)
    return Grammar(next(known for known in _GRAMMARS if known == kind), text)


def _check_schema(text: str, field: str) -> None:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        raise fault(field, "no JSON", "send a JSON schema as JSON text") from None
    if not isinstance(schema, dict):
        raise fault(field, "no JSON object", 'send a schema such as {"type": "object"}')
