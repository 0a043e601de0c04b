"""Reads the values of a profile's JSON document, one type at a time. No torch, no numpy.

Every reader takes a key and its value, and refuses a value of another type with what to give.
"""

import json

from reasonalloc.errors import ProfileError


def load_object(text: str) -> dict[str, object]:
    """Reads a JSON object that repeats no key."""
    try:
        document = json.loads(text, object_pairs_hook=_without_repeats)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ProfileError(f"profile is not JSON: {error}; give the text that calibration wrote") from None
    if not isinstance(document, dict):
        raise ProfileError(f"profile is a JSON {type(document).__name__}; give an object")
    return document


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        repeated = sorted({key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1})
        raise ProfileError(f"profile repeats the keys {repeated}; give each once")
    return document


def read_str(name: str, value: object) -> str:
    """Reads a string."""
    if not isinstance(value, str):
        raise ProfileError(f"{name} is {value!r}; give a string")
    return value


def read_int(name: str, value: object) -> int:
    """Reads an integer."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ProfileError(f"{name} is {value!r}; give an integer")
    return value


def read_float(name: str, value: object) -> float:
    """Reads a number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ProfileError(f"{name} is {value!r}; give a number")
    try:
        return float(value)
    except OverflowError:
        raise ProfileError(f"{name} is too large for a number; give a finite value") from None


def read_floats(name: str, value: object) -> tuple[float, ...]:
    """Reads a list of numbers."""
    if not isinstance(value, list):
        raise ProfileError(f"{name} is {value!r}; give a list of numbers")
    return tuple(read_float(f"{name}[{index}]", item) for index, item in enumerate(value))


def read_figures(name: str, value: object) -> dict[str, float]:
    """Reads an object of numbers."""
    if not isinstance(value, dict):
        raise ProfileError(f"{name} is {value!r}; give an object of numbers")
    return {key: read_float(f"{name}.{key}", item) for key, item in value.items()}


def read_shares(name: str, value: object) -> tuple[tuple[float, ...], ...]:
    """Reads a list of lists of numbers."""
    if not isinstance(value, list):
        raise ProfileError(f"{name} is {value!r}; give a list of lists of numbers")
    return tuple(read_floats(f"{name}[{index}]", row) for index, row in enumerate(value))
