"""What becomes of a job's process; no engine runs here."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import psutil
import pytest

from reasonserve.bench import job as engine_job
from reasonserve.bench.job import JobFailedError, run_job

SLEEPER = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[2]).with_name("pid").write_text(str(child.pid))
time.sleep(600)
"""


def job(folder: Path, code: str) -> dict[str, object]:
    """A job that runs some code in place of an engine."""
    (folder / "in_place.py").write_text(code)
    return {"engine": "reasonserve", "module": "in_place", "environment": {"PYTHONPATH": str(folder)}}


def test_a_job_that_takes_too_long_ends_with_what_it_started(tmp_path: Path) -> None:
    with pytest.raises(JobFailedError, match="not done after 3 s"):
        run_job(job(tmp_path, SLEEPER), tmp_path, timeout_s=3.0)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_a_job_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(JobFailedError, match="no such luck"):
        run_job(job(tmp_path, "raise SystemExit('no such luck')"), tmp_path)


def test_a_jobs_results_come_back(tmp_path: Path) -> None:
    code = "import pathlib, sys; pathlib.Path(sys.argv[2]).write_text('{\"tokens\": 3}')"
    assert run_job(job(tmp_path, code), tmp_path) == {"tokens": 3}


async def test_so_many_run_at_once_and_each_is_written_as_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most, ended = 0, 0, []

    async def run(_engine: Any, request: dict[str, Any]) -> dict[str, Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(request["seconds"])
        running -= 1
        ended.append(request["id"])
        return {"made": request["id"]}

    monkeypatch.setattr(engine_job, "_run_reasonserve", run)
    wave = [{"id": name, "seconds": seconds} for name, seconds in (("a", 0.2), ("b", 0.01), ("c", 0.01), ("d", 0.01))]
    file = tmp_path / "outputs.jsonl"
    work = {"engine": "reasonserve", "outputs_file": str(file), "at_once": 2}
    outputs = await engine_job._run_wave(None, work, wave)
    assert outputs == [{"made": name} for name in "abcd"]
    assert most == 2
    assert ended == ["b", "c", "d", "a"]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines == [{"id": name, "output": {"made": name}} for name in ended]
