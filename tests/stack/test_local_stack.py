"""The stack as a user drives it; the tests share one stack, the last one ends it."""

import json
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from reasonserve.stack.paths import StatePaths

DEADLINE_S = 30.0


def wait_until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not check():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.05)


@pytest.fixture
def generate(cli: Any, tenant_key: str) -> Callable[..., Any]:
    def run(prompt: str, *args: str) -> Any:
        options = ("--method", "r-kv", "--raw", *args)
        return cli("generate", prompt, *options, env={"REASONSERVE_API_KEY": tenant_key})

    return run


def test_up_says_what_to_do_next(up: str) -> None:
    assert "Ready." in up
    assert "reasonserve tenant create" in up


def test_state_is_private(cli: Any, up: str) -> None:
    paths = StatePaths(cli.state_dir)
    assert stat.S_IMODE(paths.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(paths.admin_token_file.stat().st_mode) == 0o600


def test_other_sessions_go_first(cli: Any, up: str) -> None:
    """The controller's among them: it is in a session of its own."""
    state = cli.state()
    groups = [Path(f"/proc/{process.pid}/autogroup") for process in (state.host, state.controller)]
    if not groups[0].exists():
        pytest.skip("this kernel does not schedule by session")
    assert [group.read_text().split()[-1] for group in groups] == ["15", "0"]


def test_a_second_up_is_refused(cli: Any, up: str) -> None:
    refused = cli("up")
    assert refused.returncode == 1
    assert "already running" in refused.stderr
    assert "reasonserve down" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_status_shows_the_replica_and_the_tenant(cli: Any, tenant_key: str) -> None:
    wait_until(lambda: bool(json.loads(cli.ok("status", "--json"))["replicas"]))
    seen = json.loads(cli.ok("status", "--json"))
    assert [tenant["tenant_id"] for tenant in seen["tenants"]] == ["team-a"]
    assert int(seen["capacity_slots"]) == 16384
    text = cli.ok("status")
    assert "team-a" in text
    assert "MiB" in text


def test_generate_prints_the_text_and_then_the_figures(generate: Callable[..., Any]) -> None:
    done = generate("ab", "--max-new-tokens", "6", "--no-stream")
    assert (done.returncode, done.stdout) == (0, "ababab")
    assert "6 out" in done.stderr


def test_a_stream_adds_up_to_the_same_answer(generate: Callable[..., Any]) -> None:
    streamed = json.loads(generate("abc", "--max-new-tokens", "400", "--budget", "64", "--json").stdout)
    whole = json.loads(generate("abc", "--max-new-tokens", "400", "--budget", "64", "--json", "--no-stream").stdout)
    for field in ("text", "token_ids", "finish_reason", "usage"):
        assert streamed[field] == whole[field], field
    assert streamed["kv"]["rounds"] > 0


def test_generate_shows_a_connected_trace(cli: Any, generate: Callable[..., Any]) -> None:
    done = generate("abc", "--max-new-tokens", "400", "--budget", "64", "--trace")
    assert done.returncode == 0, done.stderr
    entrance = "reasonserve.api.v1.GenerationService/GenerateStream"
    for name in ("reasonserve.client", entrance, "reasonserve.admission", "reasonserve.kv.round"):
        assert name in done.stdout, name
    request_id = done.stderr.split("Request ")[1].split(",")[0]
    assert "reasonserve.kv.round" in cli.ok("trace", request_id)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("--budget", "5000"), "budget"),
        (("--temperature", "9"), "temperature"),
        (("--budget", "2000", "--max-new-tokens", "3000"), "1024"),
    ],
)
def test_a_refusal_is_one_line_without_traceback(
    generate: Callable[..., Any], args: tuple[str, ...], expected: str
) -> None:
    refused = generate("ab", *args)
    assert refused.returncode == 1
    assert expected in refused.stderr
    assert refused.stderr.startswith("Error: ")
    assert refused.stderr.count("\n") == 1


def test_a_wrong_key_and_no_key_are_refused(cli: Any, up: str) -> None:
    wrong = cli("generate", "ab", env={"REASONSERVE_API_KEY": "wrong"})
    assert wrong.returncode == 1
    missing = cli("generate", "ab", env={"REASONSERVE_API_KEY": ""})
    assert missing.returncode == 1
    assert "REASONSERVE_API_KEY" in missing.stderr


def test_a_killed_controller_comes_back_with_its_tenants(
    cli: Any, tenant_key: str, generate: Callable[..., Any]
) -> None:
    before = cli.state().controller
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: cli.state().controller_restarts == 1)
    wait_until(lambda: cli("tenant", "show", "team-a").returncode == 0)
    assert json.loads(cli.ok("tenant", "show", "team-a", "--json"))["tenant"]["limit_slots"] == "1024"
    assert generate("ab", "--max-new-tokens", "4", "--no-stream").stdout == "abab"


def test_set_budget_changes_only_what_is_named(cli: Any, tenant_key: str) -> None:
    cli.ok("tenant", "set-budget", "team-a", "--budget-max", "512")
    tenant = json.loads(cli.ok("tenant", "show", "team-a", "--json"))["tenant"]
    assert tenant["request_budget"] == {"min_tokens": 64, "default_tokens": 64, "max_tokens": 512}
    assert tenant["limit_slots"] == "1024"


def test_down_leaves_no_process(cli: Any, up: str) -> None:
    host = psutil.Process(cli.state().host.pid)
    family = [host, *host.children(recursive=True)]
    assert len(family) > 5
    assert "Stopped." in cli.ok("down")
    assert [process for process in family if process.is_running()] == []
    assert not StatePaths(cli.state_dir).state_file.exists()
    assert "Nothing runs" in cli.ok("down")
