"""What becomes of a job's process; no engine runs here."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

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
