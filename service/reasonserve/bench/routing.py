"""Prefix affinity beside power of two choices: two replicas, prompts that share more than one cache holds."""

from __future__ import annotations

import random
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import grpc
from rich.progress import Progress
from rich.table import Table

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import generation_service_pb2_grpc as pb_grpc
from reasonserve.api.v1 import tenant_service_pb2 as tenant_pb
from reasonserve.bench.local_stack import LocalStack, handled_by, local_stack

REPLICAS = 2
LEAST_GAIN, MOST_IMBALANCE = 1.5, 0.2
"""Cached share over power of two's, and load of the busiest replica above the mean."""
POLICIES = ("power-of-two", "prefix-affinity")


@dataclass(frozen=True, slots=True)
class Setup:
    """The workload, the same for both routers.

    Attributes:
        pool_slots: KV pool of a replica: half of the prefixes fit its cache, all of them do not.
        prefixes: Prompts' beginnings, drawn uniformly.
        prefix_tokens: Tokens of one.
        own_tokens: Tokens after it that no other prompt has.
        new_tokens: Tokens that are generated.
        requests: Requests that count.
        clients: Requests at a time.
    """

    pool_slots: int
    prefixes: int
    prefix_tokens: int
    own_tokens: int
    new_tokens: int
    requests: int
    clients: int


FULL = Setup(pool_slots=4608, prefixes=16, prefix_tokens=512, own_tokens=16, new_tokens=16, requests=400, clients=6)
QUICK = Setup(pool_slots=2048, prefixes=12, prefix_tokens=320, own_tokens=16, new_tokens=8, requests=160, clients=4)


@dataclass(frozen=True, slots=True)
class Row:
    """One router.

    Attributes:
        policy: Its name.
        cached_share: Prompt tokens found in the prefix cache, of all.
        imbalance: Requests of the busiest replica above the mean, as a share of the mean.
        seconds: Wall-clock time of the requests.
        latency_p50_s: Of one request.
        failed: Requests that failed.
    """

    policy: str
    cached_share: float
    imbalance: float
    seconds: float
    latency_p50_s: float
    failed: int


def measure(setup: Setup, model: str, vocabulary: int, progress: Progress) -> list[Row]:
    """Runs the workload under both routers, each on a stack of its own, and returns a row for each.

    Raises:
        JobFailedError: A stack did not start.
    """
    rows = []
    task = progress.add_task("Routers", total=len(POLICIES))
    for policy in POLICIES:
        progress.update(task, description=f"Running {policy}")
        engine = {"pool_slots": setup.pool_slots, "grammar_backend": "none", "strict_checks": False}
        replicas = {"count": REPLICAS, "queue_wait_s": 120.0, "routing": {"policy": policy}}
        with local_stack({"model": model, "engine": engine, "replicas": replicas}) as stack:
            rows.append(_run(setup, policy, stack, vocabulary))
        progress.advance(task)
    return rows


def faults(rows: list[Row]) -> list[str]:
    """Returns how prefix affinity fell short of what it promises; empty where it did not."""
    chance, affinity = rows
    found = [f"{row.policy}: {row.failed} requests failed" for row in rows if row.failed]
    if affinity.cached_share < LEAST_GAIN * chance.cached_share:
        found.append(f"the cached share is {affinity.cached_share / chance.cached_share:.2f} times power of two's")
    if affinity.imbalance >= MOST_IMBALANCE:
        found.append(f"the busiest replica is {affinity.imbalance:.0%} above the mean")
    return found


def table(rows: list[Row]) -> Table:
    """Returns the routers side by side."""
    shown = Table(title="Two replicas, shared prefixes", title_justify="left")
    shown.add_column("router")
    for column in ("cached share", "of power of two", "imbalance", "seconds", "latency p50", "failed"):
        shown.add_column(column, justify="right")
    for row in rows:
        shown.add_row(
            row.policy,
            f"{row.cached_share:.2f}",
            f"{row.cached_share / rows[0].cached_share:.2f}x" if rows[0].cached_share else "-",
            f"{row.imbalance:.0%}",
            f"{row.seconds:.1f}",
            f"{row.latency_p50_s:.2f} s",
            str(row.failed),
        )
    return shown


def as_json(setup: Setup, rows: list[Row]) -> dict[str, Any]:
    """Returns every figure."""
    return {"setup": asdict(setup), "rows": [asdict(row) for row in rows], "faults": faults(rows)}


def make_prompts(setup: Setup, vocabulary: int) -> list[list[int]]:
    """Returns the prompts, in order: first each prefix once, which does not count, then those that do."""
    draw = random.Random(11)

    def tokens(count: int) -> list[int]:
        return [draw.randrange(3, vocabulary) for _ in range(count)]

    prefixes = [tokens(setup.prefix_tokens) for _ in range(setup.prefixes)]
    drawn = [draw.choice(prefixes) for _ in range(setup.requests)]
    return [prefix + tokens(setup.own_tokens) for prefix in prefixes + drawn]


def imbalance(served: Counter[str], replicas: int) -> float:
    """Returns how far the busiest replica is above the mean, as a share of it."""
    total = sum(served.values())
    return max(served.values(), default=0) * replicas / total - 1 if total else 0.0


def _run(setup: Setup, policy: str, stack: LocalStack, vocabulary: int) -> Row:
    budget = tenant_pb.RequestBudget(min_tokens=32, default_tokens=64, max_tokens=256)
    limit = REPLICAS * setup.pool_slots
    tenant = tenant_pb.Tenant(tenant_id="bench", weight=1, limit_slots=limit, request_budget=budget)
    key = stack.create_tenant(tenant)
    stack.wait_for_replicas(REPLICAS)
    prompts = make_prompts(setup, vocabulary)
    with grpc.insecure_channel(stack.endpoint) as channel, ThreadPoolExecutor(setup.clients) as clients:
        stub = pb_grpc.GenerationServiceStub(channel)  # type: ignore[no-untyped-call]

        def send(prompt: list[int]) -> tuple[int, float] | None:
            started = time.perf_counter()
            try:
                answer = stub.Generate(_request(setup, prompt), metadata=(("authorization", f"Bearer {key}"),))
            except grpc.RpcError:
                return None
            return answer.usage.cached_tokens, time.perf_counter() - started

        list(clients.map(send, prompts[: setup.prefixes]))
        started = time.perf_counter()
        answers = list(clients.map(send, prompts[setup.prefixes :]))
        seconds = time.perf_counter() - started
    time.sleep(1.0)  # the last spans are on their way
    good = [answer for answer in answers if answer is not None]
    return Row(
        policy=policy,
        cached_share=sum(cached for cached, _ in good) / (len(good) * len(prompts[0])) if good else 0.0,
        imbalance=imbalance(_served(stack, setup.requests), REPLICAS),
        seconds=seconds,
        latency_p50_s=statistics.median(latency for _, latency in good) if good else 0.0,
        failed=len(answers) - len(good),
    )


def _request(setup: Setup, prompt: list[int]) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        tokens=pb.TokenInput(ids=prompt),
        sampling=pb.SamplingOptions(max_new_tokens=setup.new_tokens, temperature=0.0, ignore_eos=True),
        kv=pb.KvOptions(method="r-kv"),
    )


def _served(stack: LocalStack, requests: int) -> Counter[str]:
    """Returns how many of the last requests each replica handled, as the engines' spans say."""
    handled = [span for span in stack.spans if handled_by(span)]
    handled.sort(key=lambda span: span["start_ns"])
    return Counter(map(handled_by, handled[-requests:]))
