"""Real engines for the tests: one process per job, so that no test inherits another's scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reasonserve.bench import job as engine_job
from reasonserve.config import DEFAULT_MODEL
from reasonserve.models.resolve import resolve_model

RunJob = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="session")
def model_path() -> str:
    """The default model, fetched when it is not there."""
    return str(resolve_model(DEFAULT_MODEL))


@pytest.fixture(scope="session")
def run_job(model_path: str, tmp_path_factory: pytest.TempPathFactory) -> RunJob:
    """Runs a job on a real engine and returns its results."""

    def run(job: dict[str, Any]) -> dict[str, Any]:
        return engine_job.run_job({"model": model_path, **job}, tmp_path_factory.mktemp(job["engine"]))

    return run
