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


def preferred_profile(fingerprint: str) -> str | None:
    """The shipped profile that serves a model unless another is activated.

    What a model was measured to lose says more than where its attention goes, and a split of kind ``sensitivity`` was
    proved on probes that it was not searched on: it comes before the wave.

    Returns:
        The profile's JSON text, or None when none is shipped for this model.
    """
    return shipped_profile(fingerprint, "sensitivity") or shipped_profile(fingerprint, "wave")
