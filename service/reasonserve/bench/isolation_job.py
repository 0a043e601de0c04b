"""Runs one engine under a paying tenant, alone and beside a noisy one: ``python -m reasonserve.bench.isolation_job``.

ReasonServe's engine has its admission in front, with the lease that a controller grants the only replica of a
cluster; stock SGLang takes whatever comes. Both get the same prompts at the same times.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from reasonserve.bench.job import Job, _start
from reasonserve.bench.step_clock import StepClock
from reasonserve.errors import BudgetExhaustedError, ReasonServeError
from reasonserve.replica.admission import Admission, Lease
from reasonserve.replica.desk import Desk
from reasonserve.replica.figures import Figures
from reasonserve.replica.messages import Failed, GenerateCall, TokensInput
from reasonserve.replica.protocol import Sampling
from reasonserve.replica.service import ReplicaService
from reasonserve.replica.sizing import KvAsk, TenantTerms
from reasonserve.replica.watch import EngineWatch
from reasonserve.telemetry.prometheus import PrometheusRecorder

PAYING, NOISY = "paying", "noisy"
LONGEST_RETRY_S = 1.0
"""A noisy client asks again after this long at the latest, whatever it was told."""

Tokens = AsyncIterator[int]
Submit = Callable[[str, str, list[int], int], Tokens]


def listen(manager: Any) -> tuple[dict[str, float], list[int]]:
    """Reads along what the scheduler sends; it sends its own times where SGLang's metrics are on.

    Returns:
        When each request's first prefill began, by id, and the number of messages so far; both grow.
    """
    handle = manager._handle_batch_output
    first_run: dict[str, float] = {}
    messages = [0]

    async def handle_and_note(output: Any) -> None:
        await handle(output)
        messages[0] += 1
        for rid, stats in zip(output.rids, output.time_stats or (), strict=False):
            if stats.forward_entry_time > 0:
                first_run.setdefault(rid, stats.forward_entry_time)

    manager._handle_batch_output = handle_and_note
    return first_run, messages


@dataclass
class Seen:
    """One request of the paying tenant.

    Attributes:
        arrived: When it came.
        first_token: When its first token came; None if none did.
        ended: When its last token came; None if it did not end.
        tokens: Tokens.
        refused: Whether it was refused.
    """

    arrived: float
    first_token: float | None = None
    ended: float | None = None
    tokens: int = 0
    refused: bool = False


def stock_submit(engine: Any) -> Submit:
    """Returns how a request is put to stock SGLang."""

    async def submit(request_id: str, tenant_id: str, ids: list[int], new_tokens: int) -> Tokens:
        sampling = {"temperature": 1.0, "ignore_eos": True, "max_new_tokens": new_tokens}
        stream = await engine.async_generate(input_ids=ids, sampling_params=sampling, rid=request_id, stream=True)
        async for output in stream:
            yield output["meta_info"]["completion_tokens"]

    return submit


def our_submit(service: ReplicaService) -> Submit:
    """Returns how a request is put to a replica."""

    async def submit(request_id: str, tenant_id: str, ids: list[int], new_tokens: int) -> Tokens:
        call = GenerateCall(
            request_id=request_id,
            tenant_id=tenant_id,
            input=TokensInput(ids=tuple(ids)),
            sampling=Sampling(temperature=1.0, ignore_eos=True, max_new_tokens=new_tokens),
            kv=KvAsk(method="r-kv"),
        )
        count = 0
        async with aclosing(service.generate(call)) as items:
            async for item in items:
                if isinstance(item, Failed):
                    raise item.error
                count += len(item.token_ids)
                yield count

    return submit


def replica(engine: Any, setup: dict[str, Any]) -> tuple[ReplicaService, Desk, EngineWatch]:
    """Returns a replica without Ray around an engine, under the lease of the only replica of a cluster."""
    admission = Admission(pool_slots=setup["pool_slots"], buffer_tokens=setup["buffer"], now=time.monotonic())
    desk, watch = Desk(admission=admission, engine=engine), EngineWatch(engine)
    budgets = {"min_tokens": 32, "default_tokens": setup["budget"], "max_tokens": setup["budget"]}
    paying = {"slots": 0, "guaranteed_slots": setup["guaranteed"], "limit_slots": setup["pool_slots"]}
    noisy = {"slots": setup["noisy_limit"], "guaranteed_slots": 0, "limit_slots": setup["noisy_limit"]}
    tenants = {
        PAYING: TenantTerms(tenant_id=PAYING, **paying, **budgets),
        NOISY: TenantTerms(tenant_id=NOISY, **noisy, **budgets),
    }
    desk.apply_lease(Lease(epoch=1, ttl_s=1e9, tenants=tenants, num_replicas=1), granted_at=time.monotonic())
    figures = Figures(PrometheusRecorder(CollectorRegistry()))
    service = ReplicaService(engine=engine, desk=desk, watch=watch, model="bench", figures=figures)
    return service, desk, watch


class Load:
    """Offers the load of both tenants.

    Args:
        submit: Puts a request to the engine.
        setup: See ``isolation.Setup``.
        vocabulary: Token ids lie below it.
    """

    def __init__(self, submit: Submit, setup: dict[str, Any], vocabulary: int) -> None:
        self._submit = submit
        self._setup = setup
        self._vocabulary = vocabulary
        self._random = random.Random(3)
        self._count = 0
        self.noisy_tokens = 0
        self.noisy_refused = 0

    async def run(self, phase: str, *, is_noisy: bool) -> dict[str, Seen]:
        """Sends the paying tenant's requests at times drawn once for all phases; returns what became of them."""
        noise = [
            asyncio.create_task(self._noise(f"{phase}-n{n}")) for n in range(self._noisy_clients() if is_noisy else 0)
        ]
        await asyncio.sleep(self._setup["warm_up_s"] if is_noisy else 0.0)
        seen: dict[str, Seen] = {}
        arrivals, tasks = random.Random(7), []
        for number in range(self._setup["requests"]):
            request_id = f"{phase}-p{number}"
            seen[request_id] = Seen(arrived=time.perf_counter())
            tasks.append(asyncio.create_task(self._pay(request_id, seen[request_id])))
            await asyncio.sleep(arrivals.expovariate(1 / self._setup["interval_s"]))
        await asyncio.wait(tasks, timeout=self._setup["patience_s"])
        for task in (*noise, *tasks):
            task.cancel()
        await asyncio.gather(*noise, *tasks, return_exceptions=True)
        await asyncio.sleep(1.0)
        return seen

    def _noisy_clients(self) -> int:
        one = int(self._setup["prompt"] + self._setup["budget"] + self._setup["buffer"])
        return 20 * int(self._setup["noisy_limit"]) // one

    def _prompt(self) -> list[int]:
        return [self._random.randrange(3, self._vocabulary) for _ in range(self._setup["prompt"])]

    async def _pay(self, request_id: str, seen: Seen) -> None:
        try:
            async for count in self._submit(request_id, PAYING, self._prompt(), self._setup["new_tokens"]):
                seen.first_token = seen.first_token or time.perf_counter()
                seen.tokens = count
            seen.ended = time.perf_counter()
        except ReasonServeError:
            seen.refused = True

    async def _noise(self, name: str) -> None:
        while True:
            self._count += 1
            before = 0
            try:
                async for count in self._submit(
                    f"{name}-{self._count}", NOISY, self._prompt(), self._setup["noisy_tokens"]
                ):
                    self.noisy_tokens, before = self.noisy_tokens + count - before, count
            except BudgetExhaustedError as error:
                self.noisy_refused += 1
                await asyncio.sleep(min(error.retry_after_s, LONGEST_RETRY_S))


async def run(engine: Any, manager: Any, job: Job) -> dict[str, Any]:
    """Runs both phases on an engine."""
    setup, clock = job["setup"], StepClock(manager.load_snapshot_reader)
    first_run, messages = listen(manager)
    clock.start()
    stop: list[Callable[[], Awaitable[None]]] = []
    if job["engine"] == "stock":
        submit = stock_submit(engine)
    else:
        service, desk, watch = replica(engine, setup)
        desk.start()
        watch.start()
        stop = [desk.stop, watch.stop]
        submit = our_submit(service)
    load = Load(submit, setup, int(manager.model_config.vocab_size))
    async for _ in submit("warm-up", PAYING, [5, 6, 7], 8):
        pass
    phases = {}
    for name in ("alone", "noise"):
        started, tokens, before = time.perf_counter(), load.noisy_tokens, messages[0]
        seen = await load.run(name, is_noisy=name == "noise")
        ended = time.perf_counter()
        phases[name] = {
            "requests": [_figures(s, first_run.get(request_id), clock, ended) for request_id, s in seen.items()],
            "step_times": [t - started for t in clock.times if t > started],
            "messages": messages[0] - before,
            "seconds": time.perf_counter() - started,
            "noisy_tokens": load.noisy_tokens - tokens,
            "noisy_refused": load.noisy_refused,
        }
    clock.stop()
    for end in stop:
        await end()
    return {"phases": phases}


def _figures(seen: Seen, first_run: float | None, clock: StepClock, ended: float) -> dict[str, Any]:
    """Returns what is known of one request; one that never ran waited until the end at least."""
    began = ended if first_run is None else first_run
    return {
        "refused": seen.refused,
        "served": first_run is not None,
        "wait_s": max(0.0, began - seen.arrived),
        "wait_steps": clock.between(seen.arrived, began),
        "ttft_s": (seen.first_token or ended) - seen.arrived,
        "seconds": None if seen.ended is None or seen.first_token is None else seen.ended - seen.first_token,
        "tokens": seen.tokens,
    }


def main(job_file: str, results_file: str) -> None:
    """Runs the job of one file and writes its results to another."""
    job = json.loads(Path(job_file).read_text())
    engine, manager, loop = _start(job)
    try:
        results = loop.run_until_complete(run(engine, manager, job))
    finally:
        engine.shutdown()
    Path(results_file).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
