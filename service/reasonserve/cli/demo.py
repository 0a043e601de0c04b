"""``demo``: one command that shows a bounded KV cache next to an unbounded one."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.cli import client, options, stack, tracing
from reasonserve.cli.demo_run import Run, measure
from reasonserve.cli.demo_view import comparison, watching
from reasonserve.cli.generate import build_request, sampling
from reasonserve.cli.output import err, out
from reasonserve.config import ServiceConfig
from reasonserve.errors import ReasonServeError, StartupError, UnavailableError
from reasonserve.stack import control
from reasonserve.stack.paths import StatePaths
from reasonserve.stack.state import StackState
from reasonserve.telemetry import names
from reasonserve.telemetry.tracing import root_span, trace_id_of
from reasonserve.telemetry.tree import Record, trace_tree

TENANT = "demo"
BUDGET_TOKENS = 128
TENANT_WITHIN_S = 10.0
TEMPERATURE = 0.6
SEED = 7
PROMPT = "Why is the sky blue, and why are sunsets red? Think step by step and explain every step in detail."


@dataclass(frozen=True, slots=True)
class Shown:
    """What the demo measured.

    Attributes:
        bounded: The run under a budget.
        full: The same request without compression.
        spans: Spans of the bounded run.
    """

    bounded: Run
    full: Run
    spans: list[Record]


def demo(
    tokens: Annotated[int, typer.Option("--tokens", min=256, help="Tokens to generate in each run.")] = 1024,
    port: Annotated[
        int | None, typer.Option("--port", help="Gateway port; the two after it serve controller and health.")
    ] = None,
    config: options.ConfigFile = None,
    engine_factory: stack.EngineFactory = None,
) -> None:
    """Show the whole system: start it, generate under a KV budget, compare, trace, stop.

    Runs a cluster of its own in a temporary directory and leaves nothing behind.
    """
    chosen = _with_ports(stack.load(config, None), port)
    with _temporary_stack(chosen, engine_factory) as (state, paths):
        shown = _show(state, paths, tokens)
        out.print(comparison(shown.bounded, shown.full))
        out.print(trace_tree(shown.spans))
        _require(shown)


def _with_ports(config: ServiceConfig, port: int | None) -> ServiceConfig:
    if port is None:
        return config
    data = config.model_dump()
    data["gateway"] |= {"port": port, "http_port": port + 2}
    data["controller"] |= {"port": port + 1}
    return ServiceConfig.from_mapping(data)


@contextmanager
def _temporary_stack(config: ServiceConfig, engine_factory: str | None) -> Iterator[tuple[StackState, StatePaths]]:
    """Lends a running stack; ends it whatever happens, and keeps its directory only when it did not start."""
    paths = StatePaths(Path(tempfile.mkdtemp(prefix="reasonserve-demo-")))
    before = signal.signal(signal.SIGTERM, _interrupt)
    keep = False
    try:
        yield stack.bring_up(config, paths, engine_factory=engine_factory, owned=True), paths
    except StartupError:
        keep = True
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Stopping must not be cut short.
        err.print("Stopping", style="dim")
        control.stop(paths)
        if not keep:
            shutil.rmtree(paths.root)
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, before)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _create_tenant(paths: StatePaths, tokens: int) -> str:
    """Creates the demo's tenant; returns its key."""
    tenant = tenant_pb.Tenant(
        tenant_id=TENANT,
        weight=1,
        limit_slots=max(4096, 2 * tokens),
        request_budget=tenant_pb.RequestBudget(min_tokens=32, default_tokens=BUDGET_TOKENS, max_tokens=4096),
    )
    with client.admin(None, None, paths.root) as admin:
        admin.call(admin.services.tenants.CreateTenant, tenant_pb.CreateTenantRequest(tenant=tenant))
        made = admin.call(admin.services.tenants.CreateTenantKey, tenant_pb.CreateTenantKeyRequest(tenant_id=TENANT))
    out.print(f"Created tenant {TENANT}: at most {tenant.limit_slots} KV slots over the cluster.")
    return str(made.key)


def _show(state: StackState, paths: StatePaths, tokens: int) -> Shown:
    """Runs the same request with and without a budget."""
    key = _create_tenant(paths, tokens)
    with (
        tracing.traced(state.trace_file) as provider,
        client.gateway(state.gateway_endpoint, key) as gateway,
    ):
        prompt = _warm_up(gateway)
        out.print(f"\n[bold]With a KV budget of {BUDGET_TOKENS} tokens per layer and head[/]: {PROMPT}")
        out.print("It may not stop: once its answer is done, a model this small makes up other talk.\n", style="dim")
        with root_span(provider) as span, watching(out, prompt, tokens, with_text=True) as watch:
            bounded = measure(gateway, _request("reasonalloc", tokens), watch)
        trace_id = trace_id_of(span)
        out.print("\n[bold]The same request without compression[/]")
        with root_span(provider), watching(out, prompt, tokens, with_text=False) as watch:
            full = measure(gateway, _request("full", tokens), watch)
    return Shown(bounded, full, tracing.wait_for_trace(state.trace_file, trace_id))


def _warm_up(gateway: client.Gateway) -> pb.Usage:
    """Puts the prompt into the prefix cache, so that both runs begin alike; returns its length and what is shared.

    The first call also waits for the replica to hear of the new tenant.
    """
    request = _request("reasonalloc", 1)
    patient = Retrying(
        retry=retry_if_exception_type(UnavailableError),
        stop=stop_after_delay(TENANT_WITHIN_S),
        wait=wait_fixed(0.2),
        reraise=True,
    )
    patient(gateway.generate, request)
    return gateway.generate(request).usage


def _request(method: str, tokens: int) -> pb.GenerateRequest:
    """Returns the demo's request; the end-of-sequence token is ignored so that the model goes on thinking."""
    return build_request(
        PROMPT,
        chat=True,
        budget=None if method == "full" else BUDGET_TOKENS,
        method=method,
        prompt_mode=pb.PROMPT_MODE_PINNED,
        sampling=sampling(tokens, TEMPERATURE, SEED, ignore_eos=True),
    )


def _require(shown: Shown) -> None:
    """Checks that everything the demo exists for was there.

    Raises:
        ReasonServeError: Names what is missing.
    """
    faults = []
    if not shown.bounded.rounds or not shown.bounded.evicted_cells:
        faults.append("no compression round ran")
    if not shown.bounded.peak_slots or not shown.full.peak_slots:
        faults.append("a KV report is missing")
    if shown.bounded.peak_slots >= shown.full.peak_slots:
        faults.append("the budget did not lower the peak")
    if not tracing.is_connected(shown.spans):
        faults.append("the trace is not connected")
    events = [event["name"] for span in shown.spans for event in span["events"]]
    if events.count(names.EVENT_ROUND) != shown.bounded.rounds:
        faults.append("the trace does not show every round")
    if faults:
        raise ReasonServeError(f"The demo is incomplete: {'; '.join(faults)}.")
