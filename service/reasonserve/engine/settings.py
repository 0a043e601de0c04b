"""What a replica tells the scheduler processes it starts: one JSON document in one environment variable."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from reasonserve.kv import SETTINGS_FILE_MARK, SETTINGS_VARIABLE


class EngineSettings(BaseModel):
    """Constants of the compression in one engine.

    Attributes:
        model_fingerprint: Identity of the model; a profile must name the same.
        profile_json: Layer profile as uploaded; empty when there is none.
        window_tokens: Newest queries that are captured before a round; a scorer reads as many of them as its
            window has.
        table_cells: Cells per layer and kv head that the tables have room for from the start.
        fixed_tables: Whether requests that might need more are refused, so that the tables never move; always so on
            another device than the CPU.
        allow_unproven_device: Whether to start on a device that this release was never run on.
        head_power: Exponent of the raw head demand, beta of ReasonAlloc (arXiv 2606.11164).
        head_floor: Least share of the mean head budget, mu of ReasonAlloc.
        head_ceiling: Largest multiple of the mean head budget.
        squeeze_floor: Least share of its admitted budget that a request is squeezed to before SGLang retracts one.
        squeeze_steps: Decode steps that one relief of the pool makes room for, so that it is not due at every step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_fingerprint: str = ""
    profile_json: str = ""
    window_tokens: int = 16
    table_cells: int = 1024
    fixed_tables: bool = False
    allow_unproven_device: bool = False
    head_power: float = 0.5
    head_floor: float = 0.25
    head_ceiling: float = 2.0
    squeeze_floor: float = 0.5
    squeeze_steps: int = 32

    @classmethod
    def from_environment(cls) -> EngineSettings:
        """Reads the variable, or the file that it names; absent means defaults.

        Raises:
            ValueError: The document has unknown keys or wrong values.
            OSError: The file cannot be read.
        """
        text = os.environ.get(SETTINGS_VARIABLE, "{}")
        if text.startswith(SETTINGS_FILE_MARK):
            text = Path(text.removeprefix(SETTINGS_FILE_MARK)).read_text()
        return cls.model_validate_json(text)
