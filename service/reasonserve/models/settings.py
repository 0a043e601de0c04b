"""What the environment may say about models; the only place that reads it."""

from __future__ import annotations

from pathlib import Path

import platformdirs
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ModelSettings(BaseSettings):
    """Where models are kept.

    Attributes:
        cache: Folder for built-in models; ``REASONSERVE_CACHE`` overrides the per-user default.
    """

    model_config = SettingsConfigDict(env_prefix="REASONSERVE_", frozen=True)

    cache: Path = Field(default_factory=lambda: platformdirs.user_cache_path("reasonserve"))
