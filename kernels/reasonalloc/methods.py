"""Names of methods: a layer rule, a head rule and a scorer. No torch, no numpy.

A method is written ``layer/head/scorer`` or by one of the names that the literature gave some of these triples.
"""

from collections.abc import Collection
from dataclasses import dataclass
from reprlib import repr as short_repr

from reasonalloc.errors import MethodError

LAYER_RULES = {
    "uniform": "the same for every layer",
    "pyramid": "falls from the first layer to the last (PyramidKV)",
    "wave": "by the active profile's demand, within bounds (ReasonAlloc)",
    "entropy": "by how evenly a layer's scores are spread, in every round (LAVa)",
}
"""What each layer rule does, in a few words."""

HEAD_RULES = {
    "uniform": "the same for every kv head of a layer",
    "adakv": "by the layer's best scores, a fifth of it evenly (Ada-KV)",
    "reasonalloc": "by the layer's best scores, evened out, within bounds (ReasonAlloc)",
    "one-pass": "likewise, clipped and rescaled once as the paper is read, which lets shares pass the bounds",
    "profile": "by the active profile's shares of heads, within bounds",
}
"""What each head rule does, in a few words."""

SCORERS = {
    "rkv": "attention of the newest queries against redundancy of keys, lambda 0.1 (R-KV)",
    "rkv-released": "likewise as in the authors' code, lambda 0.07",
    "snapkv": "attention of the newest queries (SnapKV)",
    "gkv": "attention remembered over rounds against redundancy of keys (G-KV)",
    "vase": "a quarter by the range of values, the rest drawn by attention (VaSE)",
    "lava": "attention times the head's largest value (LAVa)",
    "h2o": "half the newest, half by attention received so far (H2O)",
    "streaming": "the first four and the newest (StreamingLLM)",
    "random": "drawn (Random Attention)",
    "knorm": "small keys first",
    "triattention": "attention of the queries that are to come, by the active profile's centres (TriAttention)",
}
"""What each scorer goes by, in a few words."""

PROFILE_PARTS = {
    "layers": "shares of the layers",
    "heads": "shares of the kv heads",
    "queries": "centres of the queries",
}
"""What a profile may hold; the first is always there."""

_PROFILED = {"wave": "layers", "profile": "heads", "triattention": "queries"}


@dataclass(frozen=True, slots=True)
class Triple:
    """Three independent choices.

    Attributes:
        layer: One of ``LAYER_RULES``.
        head: One of ``HEAD_RULES``.
        scorer: One of ``SCORERS``.
    """

    layer: str
    head: str
    scorer: str

    def __str__(self) -> str:
        return f"{self.layer}/{self.head}/{self.scorer}"

    @property
    def profile_parts(self) -> frozenset[str]:
        """Which of ``PROFILE_PARTS`` it reads."""
        choices = (self.layer, self.head, self.scorer)
        return frozenset(_PROFILED[choice] for choice in choices if choice in _PROFILED)

    @property
    def needs_profile(self) -> bool:
        """Whether it reads a profile of the model."""
        return bool(self.profile_parts)


NAMED_METHODS = {
    "reasonalloc": Triple("wave", "reasonalloc", "rkv"),
    "reasonalloc-snapkv": Triple("wave", "reasonalloc", "snapkv"),
    "reasonalloc-gkv": Triple("wave", "reasonalloc", "gkv"),
    "reasonalloc-tri": Triple("wave", "reasonalloc", "triattention"),
    "layer-only": Triple("wave", "uniform", "rkv"),
    "head-only": Triple("uniform", "reasonalloc", "rkv"),
    "r-kv": Triple("uniform", "uniform", "rkv"),
    "snapkv": Triple("uniform", "uniform", "snapkv"),
    "pyramid-rkv": Triple("pyramid", "uniform", "rkv"),
    "ada-rkv": Triple("uniform", "adakv", "rkv"),
    "g-kv": Triple("uniform", "uniform", "gkv"),
    "vase": Triple("uniform", "uniform", "vase"),
    "lava": Triple("entropy", "adakv", "lava"),
    "h2o": Triple("uniform", "uniform", "h2o"),
    "streaming": Triple("uniform", "uniform", "streaming"),
    "random-pinned": Triple("uniform", "uniform", "random"),
    "triattention": Triple("uniform", "uniform", "triattention"),
}
"""Triples that have a name of their own."""


def parse_method(name: str) -> Triple:
    """Returns the triple that a name stands for.

    ``parse_method("pyramid-rkv") == parse_method("pyramid/uniform/rkv")``

    Args:
        name: One of ``NAMED_METHODS``, or ``layer/head/scorer``.

    Raises:
        MethodError: It stands for none; says what was given, what is allowed and what to do.
    """
    if name in NAMED_METHODS:
        return NAMED_METHODS[name]
    parts = name.split("/")
    if len(parts) != 3:
        raise MethodError(
            f"method is {short_repr(name)}; give one of {', '.join(NAMED_METHODS)}, or a triple LAYER/HEAD/SCORER "
            "such as wave/reasonalloc/rkv"
        )
    choices = zip(("layer rule", "head rule", "scorer"), (LAYER_RULES, HEAD_RULES, SCORERS), parts, strict=True)
    for what, allowed, given in choices:
        check_name(what, given, allowed)
    return Triple(*parts)


def check_name(what: str, given: str, allowed: Collection[str]) -> None:
    """Checks that a rule or scorer exists.

    Raises:
        MethodError: It does not.
    """
    if given not in allowed:
        raise MethodError(f"{what} is {short_repr(given)}; give one of {', '.join(allowed)}")
