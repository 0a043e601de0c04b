"""The doctor sees what is there, and its exit status says whether the service can run."""

import json
import socket

import pytest
import typer

from reasonserve.cli import checks, doctor
from reasonserve.cli.checks import Check, differing_packages, graded


@pytest.mark.parametrize(("value", "state"), [(3.9, "missing"), (4, "warning"), (5.9, "warning"), (6, "ok")])
def test_quantities_are_judged_by_two_bounds(value: float, state: str) -> None:
    check = graded("Free memory", f"{value}", value, needed=4, wanted=6, remedy="Buy some")
    assert check.state == state
    assert bool(check.remedy) == (state != "ok")


def test_packages_are_compared_with_the_lock() -> None:
    lock = "typer==0.0.1\nno-such-package==1.0 ; sys_platform == 'linux'\n"
    assert differing_packages(lock) == ["typer", "no-such-package"]


def test_a_taken_port_is_seen() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert checks._port(port).state == "warning"
    assert checks._port(port).state == "ok"


@pytest.mark.parametrize(("state", "status"), [("ok", 0), ("warning", 0), ("missing", 1)])
@pytest.mark.parametrize("as_json", [True, False])
def test_only_what_is_missing_fails(
    state: checks.State, status: int, as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "run_checks", lambda: [Check("Thing", state, "seen", "do it")])
    try:
        doctor.doctor(as_json)
        exit_code = 0
    except typer.Exit as stop:
        exit_code = stop.exit_code
    printed = capsys.readouterr().out
    assert exit_code == status
    if as_json:
        assert json.loads(printed) == [{"name": "Thing", "state": state, "found": "seen", "remedy": "do it"}]
    else:
        assert all(word in printed for word in ("Thing", state, "seen", "do it"))
