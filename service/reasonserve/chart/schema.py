"""The chart's ``values.schema.json``: the models' JSON schema, each key with its sentence."""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic.alias_generators import to_camel

from reasonserve.chart.values import CONFIG, Values

Schema = dict[str, Any]

_ATTRIBUTE = re.compile(r"^ {4}(\w+): ", re.MULTILINE)


def sentences(docstring: str) -> tuple[str, dict[str, str]]:
    """Splits a docstring into its text and the sentences of its ``Attributes`` section, by attribute."""
    text, _, attributes = inspect.cleandoc(docstring).partition("Attributes:\n")
    parts = _ATTRIBUTE.split("\n" + attributes.rstrip())[1:]
    return _line(text), {name: _line(what) for name, what in zip(parts[::2], parts[1::2], strict=True)}


def _line(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


def values_schema() -> Schema:
    """Returns the schema of all values; closed, with the definitions of its sections under ``$defs``."""
    schema = Values.model_json_schema(by_alias=True)
    for section in (schema, *schema["$defs"].values()):
        _describe(section)
    schema["properties"]["config"]["default"] = CONFIG
    # Helm may add it to the values of any chart.
    schema["properties"]["global"] = {"type": "object", "description": "Helm's own."}
    schema["title"] = "Values of the chart reasonserve"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _describe(section: Schema) -> None:
    """Moves sentences from a section's docstring to its keys, and drops the titles that pydantic invents."""
    section.pop("title", None)
    text, attributes = sentences(section.get("description", ""))
    section["description"] = text
    by_key = attributes | {to_camel(name): sentence for name, sentence in attributes.items()}
    for key, entry in section.get("properties", {}).items():
        entry.pop("title", None)
        if sentence := by_key.get(key):
            entry["description"] = sentence
