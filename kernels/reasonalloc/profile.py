"""Layer profiles: what each layer of one model needs, measured offline. No torch, no numpy.

A profile is a small JSON document, closed (no unknown keys), made once per model and never edited. Its
id is a hash of the canonical text, so equal ids mean equal profiles.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from reasonalloc.centres import QueryCentres
from reasonalloc.errors import ProfileError
from reasonalloc.profile_text import (
    load_object,
    read_figures,
    read_float,
    read_floats,
    read_int,
    read_shares,
    read_str,
)

FORMAT_VERSION = 3
_PLAIN_VERSION = 2
_SINCE_VERSION_3 = ("head_shares", "queries")
PROFILE_RHOS = (0.8, 0.9, 0.93, 0.95, 0.99)
PROFILE_KINDS = {
    "wave": "by how many tokens cover a share of each layer's attention (ReasonAlloc)",
    "sensitivity": "by what the model loses when a layer gives up cells, searched for",
}
"""What each kind of profile goes by, in a few words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerProfile:
    """What each layer of one model needs, as ReasonAlloc (arXiv 2606.11164, section 5.2) uses it.

    A ``sensitivity`` profile has no attention behind it: its ``demand`` is the split that lost least, its
    ``demand_by_rho`` is empty, ``rho`` is 0 and ``gamma`` 1.

    Attributes:
        model_fingerprint: Identity of the weights and config that were measured.
        model_name: For people.
        num_layers: Layers of the model.
        num_kv_heads: Kv heads of each layer.
        demand: Mean number of tokens, as a share of the context, that cover ``rho`` of a layer's
            attention; one per layer, only ratios matter. Of kind ``sensitivity``: shares of the budget.
        demand_by_rho: The same for each of ``PROFILE_RHOS``, to judge how stable the shape is.
        gamma: Power that evens out demands.
        floor: Least share of a layer, as a fraction of the mean share.
        ceiling: Greatest share of a layer, as a multiple of the mean share.
        rho: Share of the attention that ``demand`` covers.
        probes_digest: Hash of the prompts that were measured.
        created: ISO date.
        tool_version: Version of the tool that measured.
        kind: One of ``PROFILE_KINDS``.
        evidence: Figures of the calibration, by name: how stable, how good.
        head_shares: Share of each kv head, of its layer's mean; empty where heads were not measured. [L][H]
        queries: Centres of the queries before RoPE; None where they were not measured.

    Raises:
        ProfileError: A value is out of range, or values contradict each other.
    """

    model_fingerprint: str
    model_name: str
    num_layers: int
    num_kv_heads: int
    demand: tuple[float, ...]
    demand_by_rho: Mapping[float, tuple[float, ...]]
    probes_digest: str
    created: str
    tool_version: str
    gamma: float = 0.5
    floor: float = 0.25
    ceiling: float = 2.0
    rho: float = 0.93
    kind: str = "wave"
    evidence: Mapping[str, float] = dataclasses.field(default_factory=dict)
    head_shares: tuple[tuple[float, ...], ...] = ()
    queries: QueryCentres | None = None

    def __post_init__(self) -> None:
        # One spelling per value, so that equal profiles have equal text.
        for name in ("gamma", "floor", "ceiling", "rho"):
            object.__setattr__(self, name, float(getattr(self, name)))
        by_rho = {float(rho): tuple(map(float, demand)) for rho, demand in self.demand_by_rho.items()}
        object.__setattr__(self, "demand", tuple(map(float, self.demand)))
        object.__setattr__(self, "demand_by_rho", by_rho)
        object.__setattr__(self, "evidence", {name: float(value) for name, value in self.evidence.items()})
        object.__setattr__(self, "head_shares", tuple(tuple(map(float, shares)) for shares in self.head_shares))
        _check_identity(self)
        _check_constants(self)
        _check_demands(self)
        _check_heads(self)

    def __hash__(self) -> int:
        return hash(self.to_json())

    def to_json(self) -> str:
        """The canonical text: sorted keys, two spaces of indent, a newline at the end."""
        document = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        document["demand_by_rho"] = {repr(rho): demand for rho, demand in self.demand_by_rho.items()}
        document["queries"] = None if self.queries is None else dataclasses.asdict(self.queries)
        document["format_version"] = FORMAT_VERSION
        if not self.head_shares and self.queries is None:  # a profile without these keeps its text, and so its id
            document["format_version"] = _PLAIN_VERSION
            for name in _SINCE_VERSION_3:
                del document[name]
        return json.dumps(document, sort_keys=True, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "LayerProfile":
        """Reads a profile.

        Raises:
            ProfileError: Not JSON, unknown, missing or repeated keys, or wrong types or values.
        """
        document = load_object(text)
        version = document.pop("format_version", None)
        if type(version) is not int or version not in (_PLAIN_VERSION, FORMAT_VERSION):
            raise ProfileError(
                f"profile has format_version {version!r}; give {_PLAIN_VERSION} or {FORMAT_VERSION}, or calibrate the "
                "model again"
            )
        absent = _SINCE_VERSION_3 if version == _PLAIN_VERSION else ()
        fields = [field for field in dataclasses.fields(cls) if field.name not in absent]
        names = {field.name for field in fields}
        unknown, missing = sorted(document.keys() - names), sorted(names - document.keys())
        if unknown or missing:
            raise ProfileError(
                f"profile has unknown keys {unknown} and lacks keys {missing}; "
                f"give exactly {', '.join(sorted(names))}, or calibrate the model again"
            )
        return cls(**{field.name: _READERS[field.type](field.name, document[field.name]) for field in fields})

    @property
    def profile_id(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def layer_weights(self) -> tuple[float, ...]:
        """Smoothed demand of each layer, ``demand ** gamma``, with mean 1."""
        smoothed = [demand**self.gamma for demand in self.demand]
        mean = math.fsum(smoothed) / len(smoothed)
        return tuple(weight / mean for weight in smoothed)

    @property
    def parts(self) -> frozenset[str]:
        """Which of ``reasonalloc.methods.PROFILE_PARTS`` it holds."""
        measured = {"layers": True, "heads": bool(self.head_shares), "queries": self.queries is not None}
        return frozenset(part for part, held in measured.items() if held)

    def check_fits(self, num_layers: int, num_kv_heads: int, model_fingerprint: str) -> None:
        """Checks that the profile was made for a model.

        Raises:
            ProfileError: It was made for another one.
        """
        expected = {
            "num_layers": num_layers,
            "num_kv_heads": num_kv_heads,
            "model_fingerprint": model_fingerprint,
        }
        for name, allowed in expected.items():
            given = getattr(self, name)
            if given != allowed:
                raise ProfileError(
                    f"profile {self.profile_id} of {self.model_name} has {name} {given}, but the model has {allowed}; "
                    "activate a profile that was calibrated on this model"
                )


def _check_identity(profile: LayerProfile) -> None:
    for name in ("model_fingerprint", "model_name", "probes_digest", "tool_version"):
        if not getattr(profile, name):
            raise ProfileError(f"{name} is empty; give a value")
    try:
        date.fromisoformat(profile.created)
    except ValueError:
        raise ProfileError(f"created is {profile.created!r}; give a date such as 2026-01-31") from None


def _check_constants(profile: LayerProfile) -> None:
    if profile.kind not in PROFILE_KINDS:
        raise ProfileError(f"kind is {profile.kind!r}; give one of {', '.join(PROFILE_KINDS)}")
    if not all(map(math.isfinite, profile.evidence.values())):
        raise ProfileError(f"evidence is {profile.evidence}; give finite figures")
    if profile.num_layers < 1 or profile.num_kv_heads < 1:
        raise ProfileError(
            f"num_layers is {profile.num_layers} and num_kv_heads {profile.num_kv_heads}; give at least 1 of each"
        )
    if not 0 <= profile.gamma <= 1:
        raise ProfileError(f"gamma is {profile.gamma}; give 0 to 1")
    if not 0 <= profile.floor <= 1 <= profile.ceiling < math.inf:
        raise ProfileError(f"floor is {profile.floor} and ceiling {profile.ceiling}; give 0 <= floor <= 1 <= ceiling")


def _check_demands(profile: LayerProfile) -> None:
    by_rho = profile.demand_by_rho
    if profile.kind == "sensitivity":
        if by_rho or profile.rho != 0:
            raise ProfileError("a sensitivity profile has no demand_by_rho, and its rho is 0; leave both so")
        by_rho = {0.0: profile.demand}
    elif sorted(by_rho) != list(PROFILE_RHOS) or profile.rho not in by_rho:
        raise ProfileError(
            f"demand_by_rho has {sorted(by_rho)} and rho is {profile.rho}; "
            f"give {list(PROFILE_RHOS)}, and rho as one of them"
        )
    for rho, demand in by_rho.items():
        if len(demand) != profile.num_layers:
            raise ProfileError(
                f"demand at rho {rho} has {len(demand)} values; give one for each of {profile.num_layers}"
            )
        for layer, value in enumerate(demand):
            if not 0 < value < math.inf:
                raise ProfileError(f"demand at rho {rho} of layer {layer} is {value}; give a finite value above 0")
    if profile.demand != by_rho[profile.rho]:
        raise ProfileError(f"demand is not demand_by_rho at rho {profile.rho}; give the same values")


def _check_heads(profile: LayerProfile) -> None:
    shares = profile.head_shares
    if shares and [len(row) for row in shares] != [profile.num_kv_heads] * profile.num_layers:
        raise ProfileError(
            f"head_shares has {[len(row) for row in shares]} values; give {profile.num_kv_heads} for each of "
            f"{profile.num_layers} layers, or none at all"
        )
    if not all(0 < value < math.inf for row in shares for value in row):
        raise ProfileError(f"head_shares is {shares}; give finite values above 0")
    queries = profile.queries
    if queries and (queries.num_layers != profile.num_layers or queries.num_heads % profile.num_kv_heads):
        raise ProfileError(
            f"queries has {queries.num_layers} layers of {queries.num_heads} heads; give {profile.num_layers} layers, "
            f"and a multiple of {profile.num_kv_heads} heads"
        )


def _read_floats_by_rho(name: str, value: object) -> dict[float, tuple[float, ...]]:
    expected = [repr(rho) for rho in PROFILE_RHOS]
    if not isinstance(value, dict) or sorted(value) not in ([], expected):
        raise ProfileError(f"{name} is not an object with the keys {expected}; give one list for each")
    return {float(rho): read_floats(f"{name}.{rho}", demand) for rho, demand in value.items()}


def _read_queries(name: str, value: object) -> QueryCentres | None:
    if value is None:
        return None
    fields = {field.name: field.type for field in dataclasses.fields(QueryCentres)}
    if not isinstance(value, dict) or value.keys() != fields.keys():
        raise ProfileError(f"{name} is no object with the keys {', '.join(fields)}; give these, or null")
    return QueryCentres(**{key: _READERS[kind](f"{name}.{key}", value[key]) for key, kind in fields.items()})


_READERS: dict[object, Callable[[str, object], Any]] = {
    str: read_str,
    int: read_int,
    float: read_float,
    tuple[float, ...]: read_floats,
    Mapping[float, tuple[float, ...]]: _read_floats_by_rho,
    Mapping[str, float]: read_figures,
    tuple[tuple[float, ...], ...]: read_shares,
    QueryCentres | None: _read_queries,
}
