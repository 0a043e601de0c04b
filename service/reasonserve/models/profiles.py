"""Layer profiles that ship with the package; standard library only."""

from __future__ import annotations

import json
from importlib import resources


def shipped_profile(fingerprint: str) -> str | None:
    """The shipped profile of a model.

    Args:
        fingerprint: What ``reasonserve.models.fingerprint.fingerprint`` says of the model.

    Returns:
        The profile's JSON text, or None when none is shipped for this model.
    """
    for entry in resources.files("reasonserve.models").joinpath("profiles").iterdir():
        if entry.name.endswith(".json"):
            text = entry.read_text()
            if json.loads(text)["model_fingerprint"] == fingerprint:
                return text
    return None
