"""What a replica tells the processes it starts, and what these read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reasonserve.config import ServiceConfig
from reasonserve.engine.settings import EngineSettings
from reasonserve.kv import SETTINGS_VARIABLE
from reasonserve.replica.launch import node_environment


@pytest.mark.parametrize("length", [0, 200, 99_000, 400_000])
def test_a_profile_of_any_length_reaches_a_process(request: pytest.FixtureRequest, length: int) -> None:
    """Linux refuses variables of 128 KiB and more; a profile with centres of many heads is longer."""
    model = request.config.rootpath / "tests" / "data" / "pointer-chaser"
    environment = node_environment(ServiceConfig(), str(model), "x" * length)
    read = "import os; print(len(os.environ['REASONSERVE_ENGINE']))"
    done = subprocess.run([sys.executable, "-c", read], env=os.environ | environment, capture_output=True, check=True)
    assert int(done.stdout) < 128 << 10
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SETTINGS_VARIABLE, environment[SETTINGS_VARIABLE])
        settings = EngineSettings.from_environment()
    assert settings.profile_json == "x" * length
    assert settings.model_fingerprint


def test_a_settings_file_is_for_this_user_alone(request: pytest.FixtureRequest) -> None:
    model = request.config.rootpath / "tests" / "data" / "pointer-chaser"
    environment = node_environment(ServiceConfig(), str(model), "x" * 200_000)
    file = Path(environment[SETTINGS_VARIABLE].removeprefix("@"))
    assert file.parent.stat().st_mode & 0o077 == 0
