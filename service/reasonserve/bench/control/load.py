"""Many replicas in one process, for the scale benchmark: ``python -m reasonserve.bench.control.load JOB OUT``.

Each has a connection and a lease stream of its own, named tenants with demand that never rests, and renews
with jitter. Reservations follow the lease, as an honest replica's do.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import grpc

from reasonserve.api.v1 import lease_service_pb2 as pb
from reasonserve.controller_client import admin_metadata, stubs

_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 << 20))
_JITTER = 0.2
_JOIN_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to simulate.

    Attributes:
        endpoint: Controller.
        token: Admin token.
        replicas: How many.
        tenants: How many tenants have demand.
        named: Tenants with demand at each replica.
        capacity: Slots of a replica.
        load: Mean demand as a part of the capacity.
        period_s: Renewal period.
        ttl_s: Lease period of the controller.
        seconds: How long to measure, once all have joined and the first renewals are over.
    """

    endpoint: str
    token: str
    replicas: int
    tenants: int
    named: int
    capacity: int
    load: float
    period_s: float
    ttl_s: float
    seconds: float


@dataclass(slots=True)
class Seen:
    """What all replicas saw together.

    Attributes:
        join_s: From the first report of the first replica to the first answer of the last.
        latencies: Seconds from a report to its answer, while measured.
        unasked: Answers that followed no report, while measured.
        answer_bytes: Of all answers, while measured.
        lapsed: Leases that were given anew because a renewal came too late.
    """

    join_s: float = 0.0
    latencies: list[float] | None = None
    unasked: int = 0
    answer_bytes: int = 0
    lapsed: int = 0


class _Replica:
    """One replica: reports, listens, and times the answers to its reports."""

    def __init__(self, job: Job, number: int, seen: Seen) -> None:
        self._job, self._number, self._seen = job, number, seen
        self._random = random.Random(number)
        ids = self._random.sample(range(job.tenants), job.named)
        self._wanted = {f"t{i:06}": self._draw() for i in ids}
        self._reserved = dict.fromkeys(self._wanted, 0)
        self._leased = dict.fromkeys(self._wanted, 0)
        self._seq = self._epoch = 0
        self._sent_at = 0.0
        self._due: asyncio.Future[None] | None = None

    def _draw(self) -> int:
        mean = self._job.load * self._job.capacity / self._job.named
        return int(self._random.expovariate(1 / mean))

    def _report(self) -> pb.LeaseRequest:
        """Moves the demand of two tenants and reports."""
        for tenant_id in self._random.sample(sorted(self._wanted), min(2, len(self._wanted))):
            self._wanted[tenant_id] = self._draw()
        self._reserved = {t: min(self._wanted[t], slots) for t, slots in self._leased.items()}
        return pb.LeaseRequest(
            replica_id=f"r{self._number:06}",
            model="simulated",
            capacity_slots=self._job.capacity,
            bytes_per_slot=1 << 17,
            tenants=[
                pb.TenantDemand(tenant_id=t, reserved_slots=reserved, wanted_slots=self._wanted[t] - reserved)
                for t, reserved in self._reserved.items()
            ],
            applied_seq=self._seq,
            incremental=True,
        )

    async def run(self, joining: asyncio.Semaphore, joined: asyncio.Event, stop: asyncio.Event) -> None:
        """Joins, then renews until told to stop."""
        async with grpc.aio.insecure_channel(self._job.endpoint, options=_OPTIONS) as channel:
            call = stubs(channel).leases.Lease(metadata=admin_metadata(self._job.token))
            async with joining:
                await call.write(self._report())
                self._take(cast("pb.LeaseResponse", await call.read()))
            joined.set()
            listening = asyncio.create_task(self._listen(call))
            await asyncio.sleep(self._random.uniform(0, self._job.period_s))
            while not stop.is_set():
                self._due = asyncio.get_running_loop().create_future()
                self._sent_at = time.monotonic()
                await call.write(self._report())
                await self._answered(self._due, listening)
                left = self._sent_at + self._job.period_s * self._random.uniform(1 - _JITTER, 1) - time.monotonic()
                await asyncio.sleep(max(0.0, left))
            listening.cancel()
            call.cancel()

    async def _answered(self, due: asyncio.Future[None], listening: asyncio.Task[None]) -> None:
        """Waits for the answer, at most until the next renewal; that counts as its latency then."""
        await asyncio.wait((due, listening), timeout=self._job.period_s, return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            listening.result()
        if self._seen.latencies is not None:
            self._seen.latencies.append(time.monotonic() - self._sent_at)

    async def _listen(self, call: grpc.aio.StreamStreamCall[pb.LeaseRequest, pb.LeaseResponse]) -> None:
        while True:
            answer = cast("pb.LeaseResponse", await call.read())
            measured = self._seen.latencies is not None
            # An answer to a report has the whole lease period before it, one unasked what is left of it.
            asked = answer.ttl.ToNanoseconds() > (self._job.ttl_s - self._job.period_s / 2) * 1e9
            asked = asked and self._due is not None and not self._due.done()
            if asked and self._due is not None:
                self._due.set_result(None)
            self._seen.unasked += measured and not asked
            self._seen.answer_bytes += measured * answer.ByteSize()
            self._take(answer)

    def _take(self, answer: pb.LeaseResponse) -> None:
        self._seen.lapsed += self._epoch not in (0, answer.epoch)
        self._epoch, self._seq = answer.epoch, answer.seq
        self._leased |= {lease.tenant.tenant_id: lease.slots for lease in answer.tenants}


async def simulate(job: Job) -> Seen:
    """Runs the replicas and returns what they saw."""
    seen, stop = Seen(), asyncio.Event()
    joining, joined = asyncio.Semaphore(_JOIN_AT_ONCE), [asyncio.Event() for _ in range(job.replicas)]
    began = time.monotonic()
    replicas = [_Replica(job, n, seen) for n in range(job.replicas)]
    tasks = [asyncio.create_task(r.run(joining, joined[n], stop)) for n, r in enumerate(replicas)]
    watch = asyncio.gather(*tasks)
    all_joined = asyncio.gather(*(event.wait() for event in joined))
    waits: list[asyncio.Future[Any]] = [watch, all_joined]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    seen.join_s = time.monotonic() - began
    await asyncio.sleep(2 * job.period_s)
    seen.latencies, seen.lapsed = [], 0
    _say("began")
    await asyncio.wait([watch], timeout=job.seconds)
    _say("ended")
    found, seen.latencies = seen.latencies, None
    stop.set()
    await watch
    seen.latencies = found
    return seen


def _say(word: str) -> None:
    """Tells whoever started this process, which then looks at the controller's."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main(job_file: str, out_file: str) -> None:
    """Runs the job of one file and writes what was seen to another."""
    job = Job(**json.loads(Path(job_file).read_text()))
    Path(out_file).write_text(json.dumps(asdict(asyncio.run(simulate(job)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
