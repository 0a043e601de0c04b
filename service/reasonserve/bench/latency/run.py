"""Bare server and stacks, in turns on the same machine at the same time."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from rich.progress import Progress
from rich.table import Table

from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.bench.latency.load import Target, Turn, Work, run_turn
from reasonserve.bench.local_stack import local_stack
from reasonserve.stack.paths import StatePaths
from reasonserve.stack.serving import ONE_LOOP, TRANSPORT
from reasonserve.stack.state import StackState

NOOP = "reasonserve.bench.latency.noop:create"
BARE = "bare grpc.aio"
DIRECT = "ours without Ray"
SLOTS = 16384


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What is measured.

    Attributes:
        turns: Turns of each target; targets alternate.
        work: What a turn asks.
    """

    turns: int
    work: Work


FULL = Setup(turns=7, work=Work(calls=200, stream_tokens=2000, streams=8, paced_tokens=300, pace_ms=10))
QUICK = Setup(turns=2, work=Work(calls=40, stream_tokens=400, streams=4, paced_tokens=100, pace_ms=10))

PROCESSES = {BARE: "reasonserve.bench.latency.bare", DIRECT: "reasonserve.bench.latency.direct"}
"""Servers in one process, by name."""
STACKS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "stack": ({}, {}),
    "stack, no request traced": ({"telemetry": {"sampling_ratio": 0.0}}, {}),
    "stack, a chunk a token": ({"replicas": {"chunk_delay_ms": 0.0}}, {}),
    "stack, Ray Serve as it comes": (
        {"gateway": {"entrance": "proxy"}},
        {TRANSPORT: "0", **dict.fromkeys(ONE_LOOP, "1")},
    ),
}
"""Stacks by name: what their configuration changes, and variables of their processes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One target over all turns; medians of the turns, lowest and highest beside them where two are shown.

    Attributes:
        target: Which.
        p50_ms: Median of a unary call.
        p50_spread_ms: Its lowest and highest turn.
        p99_ms: 99th percentile of a unary call.
        added_p50_ms: ``p50_ms`` less that of the bare server in the same turn.
        token_us: Microseconds for each token of the fast stream; for each chunk where none share.
        added_token_us: The same less the bare server's.
        tokens_per_message: Tokens in one message of the paced streams.
        cpu_s_per_1000: Processor seconds of the server for 1,000 paced tokens.
    """

    target: str
    p50_ms: float
    p50_spread_ms: tuple[float, float]
    p99_ms: float
    added_p50_ms: float
    added_p99_ms: float
    token_us: float
    added_token_us: float
    tokens_per_message: float
    cpu_s_per_1000: float


def measure(setup: Setup, progress: Progress, stacks: Sequence[str] = tuple(STACKS)) -> list[Turn]:
    """Starts every target, runs the turns and returns them.

    Raises:
        JobFailedError: A stack did not start.
    """
    task = progress.add_task("Starting", total=setup.turns * (len(PROCESSES) + len(stacks)))
    turns: list[Turn] = []
    with ExitStack() as running:
        targets = [running.enter_context(_process(name)) for name in PROCESSES]
        for name in stacks:
            progress.update(task, description=f"Starting: {name}")
            targets.append(running.enter_context(_stack(name)))
        for number in range(setup.turns):
            first = number % len(targets)
            for target in targets[first:] + targets[:first]:
                progress.update(task, description=target.name)
                turns.append(asyncio.run(run_turn(target, setup.work)))
                progress.advance(task)
    return turns


@contextmanager
def _process(name: str) -> Iterator[Target]:
    command = [sys.executable, "-m", PROCESSES[name]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            yield Target(name, f"127.0.0.1:{port}", (("authorization", "Bearer key"),), server.pid)
        finally:
            server.stdin.close()


@contextmanager
def _stack(name: str) -> Iterator[Target]:
    changes, environment = STACKS[name]
    with local_stack(
        {"engine": {"pool_slots": SLOTS}} | changes, engine_factory=NOOP, environment=environment
    ) as stack:
        budget = tenant_pb.RequestBudget(min_tokens=32, default_tokens=128, max_tokens=1024)
        key = stack.create_tenant(tenant_pb.Tenant(tenant_id="bench", limit_slots=SLOTS, request_budget=budget))
        stack.wait_for_replicas(1)
        state = StackState.read(StatePaths(stack.state_dir).state_file)
        assert state is not None
        yield Target(name, stack.endpoint, (("authorization", f"Bearer {key}"),), state.host.pid)


def rows(turns: Sequence[Turn]) -> list[Row]:
    """Returns a row for each target, the bare server first."""
    names = list(dict.fromkeys(turn.target for turn in turns))
    by_name = {name: [turn for turn in turns if turn.target == name] for name in names}
    return [_row(name, by_name[name], by_name[BARE]) for name in sorted(names, key=lambda name: name != BARE)]


def _row(name: str, mine: Sequence[Turn], floor: Sequence[Turn]) -> Row:
    median = statistics.median

    def p(turn: Turn, percent: int) -> float:
        return 1000 * statistics.quantiles(turn.unary_s, n=100)[percent - 1]

    def token(turn: Turn) -> float:
        return 1e6 * turn.stream_s / turn.stream_tokens

    p50s = [p(turn, 50) for turn in mine]
    paced = [turn.paced_messages for turn in mine]
    return Row(
        target=name,
        p50_ms=median(p50s),
        p50_spread_ms=(min(p50s), max(p50s)),
        p99_ms=median(p(turn, 99) for turn in mine),
        added_p50_ms=median(p(a, 50) - p(b, 50) for a, b in zip(mine, floor, strict=True)),
        added_p99_ms=median(p(a, 99) - p(b, 99) for a, b in zip(mine, floor, strict=True)),
        token_us=median(token(turn) for turn in mine),
        added_token_us=median(token(a) - token(b) for a, b in zip(mine, floor, strict=True)),
        tokens_per_message=max(floor[0].paced_messages / median(paced), 1.0),
        cpu_s_per_1000=median(turn.cpu_s_per_1000 for turn in mine),
    )


def table(measured: Sequence[Row]) -> Table:
    """Returns the rows for people."""
    shown = Table(title="A call through gateway and replica, with an engine that costs nothing", title_justify="left")
    columns = (
        "p50 ms",
        "spread",
        "p99 ms",
        "+p50 ms",
        "+p99 ms",
        "us a token",
        "+us",
        "tokens a chunk",
        "CPU s/1k tokens",
    )
    shown.add_column("target")
    for column in columns:
        shown.add_column(column, justify="right")
    for row in measured:
        shown.add_row(
            row.target,
            f"{row.p50_ms:.2f}",
            "{:.2f}-{:.2f}".format(*row.p50_spread_ms),
            f"{row.p99_ms:.2f}",
            f"{row.added_p50_ms:.2f}",
            f"{row.added_p99_ms:.2f}",
            f"{row.token_us:.0f}",
            f"{row.added_token_us:.0f}",
            f"{row.tokens_per_message:.1f}",
            f"{row.cpu_s_per_1000:.3f}",
        )
    return shown


def as_json(setup: Setup, turns: Sequence[Turn]) -> dict[str, Any]:
    """Returns every figure."""
    return {
        "setup": asdict(setup),
        "rows": [asdict(row) for row in rows(turns)],
        "turns": [asdict(turn) for turn in turns],
        "ray_serve_llm": ray_serve_llm(),
    }


def ray_serve_llm() -> str:
    """Returns why Ray Serve LLM's own SGLang path is not among the targets."""
    import torch

    if not torch.cuda.is_available():
        return (
            "Ray Serve LLM's SGLang path was not run: its RayEngine starts each scheduler as a Ray actor with a GPU "
            "of its own, and this machine has none."
        )
    return (
        "Ray Serve LLM's SGLang path was not run: it takes a real engine, and this compares what engines cost nothing."
    )
