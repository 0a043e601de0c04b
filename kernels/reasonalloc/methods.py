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
}
"""What each layer rule does, in a few words."""

HEAD_RULES = {
    "uniform": "the same for every kv head of a layer",
    "reasonalloc": "by the layer's best scores, evened out, within bounds (ReasonAlloc)",
}
"""What each head rule does, in a few words."""

SCORERS = {
    "rkv": "attention of the newest queries against redundancy of keys (R-KV)",
    "snapkv": "attention of the newest queries (SnapKV)",
}
"""What each scorer goes by, in a few words."""

_PROFILED = ("wave",)


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
    def needs_profile(self) -> bool:
        """Whether layers are split by a profile of the model."""
        return self.layer in _PROFILED


NAMED_METHODS = {
    "reasonalloc": Triple("wave", "reasonalloc", "rkv"),
    "reasonalloc-snapkv": Triple("wave", "reasonalloc", "snapkv"),
    "layer-only": Triple("wave", "uniform", "rkv"),
    "head-only": Triple("uniform", "reasonalloc", "rkv"),
    "r-kv": Triple("uniform", "uniform", "rkv"),
    "snapkv": Triple("uniform", "uniform", "snapkv"),
    "pyramid-rkv": Triple("pyramid", "uniform", "rkv"),
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
