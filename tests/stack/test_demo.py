"""The demo's measuring and showing, and that Ctrl-C leaves nothing behind."""

import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.cli.demo_run import Progress, Run, measure
from reasonserve.cli.demo_view import comparison, figures, watching
from reasonserve.errors import UnavailableError

DEADLINE_S = 60.0


class OneStream:
    """A gateway that streams what it was given."""

    def __init__(self, *parts: pb.GenerateResponse) -> None:
        self.parts = parts

    def stream(self, request: pb.GenerateRequest) -> Iterator[pb.GenerateResponse]:
        yield from self.parts


def part(text: str, held: int, rounds: int = 0, **ending: Any) -> pb.GenerateResponse:
    progress = pb.KvProgress(held_slots=held, rounds=rounds)
    return pb.GenerateResponse(text=text, token_ids=list(text.encode()), progress=progress, **ending)


def test_a_run_is_what_the_stream_reported() -> None:
    ending = {
        "usage": pb.Usage(input_tokens=3, output_tokens=4),
        "kv": pb.KvReport(budget_tokens=64, peak_slots=9, rounds=2, kept_cells=10, evicted_cells=20),
    }
    seen: list[Progress] = []
    run = measure(OneStream(part("ab", 5), part("cd", 3, 2, **ending)), pb.GenerateRequest(), seen.append)  # type: ignore[arg-type]
    assert (run.budget_tokens, run.peak_slots, run.rounds, run.kept_cells, run.evicted_cells) == (64, 9, 2, 10, 20)
    assert seen == [
        Progress(text="ab", output_tokens=2, held_slots=5, rounds=0),
        Progress(text="abcd", output_tokens=4, held_slots=3, rounds=2),
    ]
    assert run.tokens_per_s > 0


def test_a_stream_without_its_report_is_a_failure() -> None:
    with pytest.raises(UnavailableError, match="without its KV report"):
        measure(OneStream(part("ab", 5)), pb.GenerateRequest(), lambda progress: None)  # type: ignore[arg-type]


def test_the_live_line_counts_the_shared_prompt_on_both_sides() -> None:
    prompt = pb.Usage(input_tokens=50, cached_tokens=49)
    line = figures(prompt, Progress(text="", output_tokens=200, held_slots=130, rounds=1))
    assert "held: 179 |" in line
    assert "would hold: 250 |" in line


def test_a_log_gets_plain_lines() -> None:
    written = io.StringIO()
    console = Console(file=written, width=80)
    with watching(console, pb.Usage(input_tokens=9), 300, with_text=True) as watch:
        for tokens in range(1, 301):
            watch(Progress(text="[b]" * tokens, output_tokens=tokens, held_slots=tokens, rounds=0))
    text = written.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    assert text.count("KV slots held") == 2
    assert text.count("[b]") == 256


def test_the_table_shows_both_runs() -> None:
    run = {"output_tokens": 8, "rounds": 0, "kept_cells": 0, "evicted_cells": 0, "first_token_s": 0.5}
    bounded = Run(budget_tokens=128, peak_slots=256, tokens_per_s=20.0, **run)
    full = Run(budget_tokens=0, peak_slots=1024, tokens_per_s=21.0, **run)
    console = Console(file=io.StringIO(), width=100)
    console.print(comparison(bounded, full))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for figure in ("128", "none", "256", "1024", "20.0", "21.0"):
        assert figure in text


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_while_it_starts_leaves_nothing(make_config: Callable[..., Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "reasonserve", "demo", "--config", str(make_config())]
    command += ["--engine-factory", "reasonserve.replica.fake_engine:create"]
    # Ray's sockets have short names to live with, so its own files stay where they are.
    environment = os.environ | {"TMPDIR": str(tmp_path), "RAY_TMPDIR": tempfile.gettempdir()}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # A shell starts what it runs in the background with this signal ignored, and so would the demo.
    process = subprocess.Popen(command, env=environment, **pipes, preexec_fn=_heed_interrupts)
    family: list[psutil.Process] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(family) < 4:  # The supervisor, the controller and the first processes of Ray.
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read().decode()
        family = psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130, stderr.decode()
    assert [member for member in family if member.is_running()] == []
    assert list(tmp_path.iterdir()) == []
