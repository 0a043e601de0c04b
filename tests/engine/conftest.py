"""Real engines for the tests: one process per job, so that no test inherits another's scheduler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RunJob = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="session")
def model_path() -> str:
    """The default model, fetched when it is not there."""
    from reasonserve.config import DEFAULT_MODEL
    from reasonserve.models.resolve import resolve_model

    return str(resolve_model(DEFAULT_MODEL))


@pytest.fixture(scope="session")
def run_job(model_path: str, tmp_path_factory: pytest.TempPathFactory) -> RunJob:
    """Runs a job of ``drive_engine.py`` and returns its results."""

    def run(job: dict[str, Any]) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp(job["engine"])
        (folder / "job.json").write_text(json.dumps({"model": model_path, **job}))
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
        if job["engine"] == "stock":
            environment["SGLANG_PLUGINS"] = "reasonserve_cpu"
        script = Path(__file__).with_name("drive_engine.py")
        command = [sys.executable, str(script), str(folder / "job.json"), str(folder / "out.json")]
        with (folder / "log").open("w") as log:
            done = subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=900, check=False)
        assert done.returncode == 0, (folder / "log").read_text()[-4000:]
        return dict(json.loads((folder / "out.json").read_text()))

    return run
