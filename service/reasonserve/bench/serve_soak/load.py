"""Sends the load, in an open loop, and sees every request to its end; some clients leave, some are killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

from reasonserve.api.v1 import generation_service_pb2_grpc as pb_grpc
from reasonserve.bench.job import JobFailedError
from reasonserve.bench.serve_soak import client
from reasonserve.bench.serve_soak.account import HUNG, KILLED, Outcome
from reasonserve.bench.serve_soak.plan import Planned

GRACE_S = 30.0
"""A request that has not ended so long after its deadline is given up."""
LEAD_S = 15.0
"""A client's process is started so long before it sends."""
REFUSED_S = 0.5
FORGOTTEN_S = 3.0
"""The first seconds of the capacity's measurement do not count."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a number of clients get that ask without pause.

    Attributes:
        per_s: Requests a second that were answered.
        usual_s: What one took, the median.
        refused: Requests that were refused.
    """

    per_s: float
    usual_s: float
    refused: int


class Load:
    """Clients of one gateway; use it in ``async with``.

    Args:
        endpoint: ``host:port``.
        keys: Key by tenant.
        deadline_s: Of each request.
    """

    def __init__(self, endpoint: str, keys: Mapping[str, str], deadline_s: float) -> None:
        self._endpoint = endpoint
        self._keys = keys
        self._deadline_s = deadline_s
        self._stubs: dict[str, Any] = {}
        self._open = AsyncExitStack()
        self._began = time.monotonic()
        self._usual_s = 1.0
        self.outcomes: dict[int, Outcome] = {}

    async def __aenter__(self) -> Self:
        """Opens a connection for each tenant."""
        options = (("grpc.use_local_subchannel_pool", 1),)
        for tenant in self._keys:
            channel = await self._open.enter_async_context(grpc.aio.insecure_channel(self._endpoint, options))
            self._stubs[tenant] = pb_grpc.GenerationServiceStub(channel)  # type: ignore[no-untyped-call]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Closes them."""
        await self._open.aclose()

    @property
    def now_s(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self._began

    def begin(self) -> None:
        """Begins to count the load's time."""
        self._began = time.monotonic()

    async def capacity(self, requests: Iterator[Planned], clients: int, seconds: float) -> Capacity:
        """Returns what a number of clients get.

        A request that is refused for want of memory does not count; its client asks for another one a moment later.

        Raises:
            JobFailedError: One ended otherwise, or none was answered.
        """
        taken: list[tuple[float, float]] = []
        refused: list[Outcome] = []
        failed: list[Outcome] = []
        ends_at = time.monotonic() + FORGOTTEN_S + seconds

        async def ask() -> None:
            while time.monotonic() < ends_at and not failed:
                outcome = await self._send(next(requests))
                if outcome.code == "OK":
                    taken.append((time.monotonic(), outcome.ended_s - outcome.sent_s))
                elif outcome.code == "RESOURCE_EXHAUSTED":
                    refused.append(outcome)
                    await asyncio.sleep(REFUSED_S)
                else:
                    failed.append(outcome)

        await asyncio.gather(*[ask() for _ in range(clients)])
        counted = [spent for at, spent in taken if ends_at - seconds <= at < ends_at]
        for outcome in failed:
            raise JobFailedError(f"While the capacity was measured: {outcome.code}: {outcome.details}")
        if not counted:
            raise JobFailedError(f"No request was answered within {seconds:.0f} s; is the machine busy?")
        return Capacity(len(counted) / seconds, statistics.median(counted), len(refused))

    async def run(self, planned: Sequence[Planned], usual_s: float, on_end: Callable[[], None]) -> None:
        """Sends every request at its time after ``begin``, whatever became of those before, and waits for all ends.

        Args:
            planned: The requests, in order.
            usual_s: What one usually takes: the measure of their ``moment``.
            on_end: Called when one has ended.
        """
        self._usual_s = usual_s

        async def see_through(request: Planned) -> None:
            try:
                async with asyncio.timeout(self._deadline_s + GRACE_S + LEAD_S):
                    outcome = await (self._kill(request) if request.fate == "kill" else self._send(request))
            except TimeoutError:
                outcome = Outcome(HUNG, "it did not end", ended_s=self.now_s)
            self.outcomes[request.number] = outcome
            on_end()

        async with asyncio.TaskGroup() as group:
            for request in sorted(planned, key=_starts_at):
                await asyncio.sleep(_starts_at(request) - self.now_s)
                group.create_task(see_through(request))

    async def _send(self, request: Planned) -> Outcome:
        """Sends a request from here; cancels it at its moment where that is its fate."""
        sent_s, seen = self.now_s, [0, 0]
        stub, options = self._stubs[request.tenant], {"metadata": self._metadata(request), "timeout": self._deadline_s}
        call = (stub.GenerateStream if request.is_streamed else stub.Generate)(request.message(), **options)
        reading = asyncio.create_task(_read(call, seen, streamed=request.is_streamed))
        try:
            if request.fate == "cancel":
                await asyncio.wait((reading,), timeout=request.moment * self._usual_s)
                call.cancel()
            code, details = await reading
        finally:
            call.cancel()
            reading.cancel()
        return Outcome(code, details, seen[0], seen[1], sent_s, self.now_s)

    async def _kill(self, request: Planned) -> Outcome:
        """Sends a request from a process of its own and kills that at the request's moment."""
        command = (sys.executable, "-m", client.__name__, self._endpoint)
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
        try:
            return await self._ask_and_kill(process, request)
        finally:
            _sigkill(process)
            await process.wait()

    async def _ask_and_kill(self, process: Process, request: Planned) -> Outcome:
        assert process.stdin is not None
        assert process.stdout is not None
        if (said := await process.stdout.readline()) != client.READY.encode() + b"\n":
            raise JobFailedError(f"A client's process did not connect; it said {said!r}.")
        await asyncio.sleep(request.at_s - self.now_s)
        sent_s, metadata = self.now_s, self._metadata(request)
        job = client.job(request.message(), metadata, streamed=request.is_streamed, timeout_s=self._deadline_s)
        process.stdin.write(job.encode())
        await process.stdin.drain()
        await asyncio.sleep(request.moment * self._usual_s)
        _sigkill(process)
        told = await process.stdout.read()
        if not told.endswith(b"\n"):
            return Outcome(KILLED, sent_s=sent_s, ended_s=self.now_s)
        return Outcome(**json.loads(told), sent_s=sent_s, ended_s=self.now_s)

    def _metadata(self, request: Planned) -> tuple[tuple[str, str], ...]:
        key = self._keys[request.tenant]
        return (("authorization", f"Bearer {key}"), ("traceparent", request.traceparent))


def _sigkill(process: Process) -> None:
    """Kills a process that has not been waited for; ``Process.kill`` might take its end from asyncio, which waits."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def _starts_at(request: Planned) -> float:
    """Returns when something has to be done for a request."""
    return request.at_s - LEAD_S if request.fate == "kill" else request.at_s


async def _read(call: Any, seen: list[int], *, streamed: bool) -> tuple[str, str]:
    """Reads a call to its end and returns its status; ``seen`` counts messages with tokens, and tokens, on the way."""
    try:
        if streamed:
            async for message in call:
                if message.token_ids:
                    seen[:] = seen[0] + 1, seen[1] + len(message.token_ids)
        else:
            seen[:] = 1, len((await call).token_ids)
        code: str = (await call.code()).name
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    except asyncio.CancelledError:
        if not call.cancelled():
            raise
        return "CANCELLED", ""
    return code, ""
