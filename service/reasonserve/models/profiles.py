"""Layer profiles that ship with the package; standard library only."""

from __future__ import annotations

import json
from importlib import resources


def shipped_profile(fingerprint: str, kind: str = "wave") -> str | None:
    """The shipped profile of a model.

    Args:
        fingerprint: What ``reasonserve.models.fingerprint.fingerprint`` says of the model.
        kind: One of ``reasonalloc.profile.PROFILE_KINDS``.

    Returns:
        The profile's JSON text, or None when none of this kind is shipped for this model.
    """
    for entry in resources.files("reasonserve.models").joinpath("profiles").iterdir():
        if entry.name.endswith(".json"):
            text = entry.read_text()
            document = json.loads(text)
            if (document["model_fingerprint"], document["kind"]) == (fingerprint, kind):
                return text
    return None
