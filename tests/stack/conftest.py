"""A stack around the fake engine: real supervisor, controller, Ray and gateway, driven by the command line."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from reasonserve.stack.paths import StatePaths
from reasonserve.stack.state import StackState

FAKE_ENGINE = "reasonserve.replica.fake_engine:create"
COMMAND_TIMEOUT_S = 150


def free_ports(count: int) -> list[int]:
    """Returns ports that were free a moment ago, all different."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@dataclass(frozen=True)
class Cli:
    """The command line on one state directory, in processes of its own."""

    state_dir: Path

    def __call__(self, *args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        variables = os.environ | {"REASONSERVE_STATE": str(self.state_dir), "COLUMNS": "200"} | (env or {})
        command = [sys.executable, "-m", "reasonserve", *args]
        return subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )

    def ok(self, *args: str, env: dict[str, str] | None = None) -> str:
        """Runs a command that must succeed; returns its standard output."""
        done = self(*args, env=env)
        assert done.returncode == 0, f"{args}: {done.stdout}{done.stderr}{self.log()}"
        return done.stdout

    def log(self) -> str:
        log = StatePaths(self.state_dir).host_log
        return "\n--- host.log\n" + (log.read_text()[-4000:] if log.exists() else "none")

    def state(self) -> StackState:
        state = StackState.read(StatePaths(self.state_dir).state_file)
        assert state is not None
        return state


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest folder that passes for a model."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    return folder


@pytest.fixture(scope="module")
def make_config(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a configuration with free ports; keywords replace whole sections."""

    def make(**sections: object) -> Path:
        gateway, http, controller = free_ports(3)
        config = {
            "model": str(model_folder),
            "gateway": {"port": gateway, "http_port": http},
            "controller": {"port": controller, "lease_ttl_s": 30.0},
        }
        path = tmp_path_factory.mktemp("config") / "config.yaml"
        path.write_text(json.dumps(config | sections))
        return path

    return make


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="module")
def up(cli: Cli, make_config: Callable[..., Path]) -> Iterator[str]:
    """A running stack; yields what ``up`` printed. Nothing of it may outlive the tests."""
    text = cli.ok("up", "--config", str(make_config()), "--engine-factory", FAKE_ENGINE)
    state = cli.state()
    family = psutil.Process(state.host.pid).children(recursive=True)
    yield text
    cli("down")
    for process in family:
        if process.is_running():
            process.kill()


@pytest.fixture(scope="module")
def tenant_key(cli: Cli, up: str) -> str:
    """The key of a tenant that may hold 1024 slots."""
    text = cli.ok("tenant", "create", "team-a", "--limit-slots", "1024", "--budget-default", "64")
    return text.split("shown only now:\n")[1].strip()
