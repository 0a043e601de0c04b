"""The client's side: calls, timed; streams, counted; and the processor time that servers spend on them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import grpc
import psutil

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.api.v1 import generation_service_pb2_grpc as pb_grpc

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Target:
    """A server under load.

    Attributes:
        name: Which.
        endpoint: ``host:port``.
        metadata: What calls carry.
        pid: Its process; children count as its own.
    """

    name: str
    endpoint: str
    metadata: Metadata
    pid: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a turn asks of each target.

    Attributes:
        calls: Unary calls of one token, one after the other.
        stream_tokens: Tokens of the stream that is as fast as it can be.
        streams: Paced streams at once.
        paced_tokens: Tokens of each.
        pace_ms: Time between two of its tokens.
    """

    calls: int
    stream_tokens: int
    streams: int
    paced_tokens: int
    pace_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What one target did in one turn.

    Attributes:
        target: Which.
        unary_s: Seconds of each unary call, in order.
        messages: Messages of the fast stream.
        stream_tokens: Its tokens.
        stream_s: Its seconds.
        paced_messages: Messages of the paced streams.
        cpu_s_per_1000: Processor seconds of the server for 1,000 paced tokens, less what it spends idle.
    """

    target: str
    unary_s: list[float]
    messages: int
    stream_tokens: int
    stream_s: float
    paced_messages: int
    cpu_s_per_1000: float


async def run_turn(target: Target, work: Work) -> Turn:
    """Runs one turn against one target."""
    async with grpc.aio.insecure_channel(target.endpoint) as channel:
        stub = pb_grpc.GenerationServiceStub(channel)  # type: ignore[no-untyped-call]
        for _ in range(5):
            await _call(stub, target, 1)
        unary = [await _call(stub, target, 1) for _ in range(work.calls)]
        await _stream(stub, target, "hello", work.stream_tokens // 10)
        began = time.perf_counter()
        messages = await _stream(stub, target, "hello", work.stream_tokens)
        stream_s = time.perf_counter() - began
        paced_messages, cpu_s = await _paced(stub, target, work)
    tokens = work.streams * work.paced_tokens
    return Turn(
        target=target.name,
        unary_s=unary,
        messages=messages,
        stream_tokens=work.stream_tokens,
        stream_s=stream_s,
        paced_messages=paced_messages,
        cpu_s_per_1000=1000 * cpu_s / tokens,
    )


def _request(prompt: str, tokens: int) -> pb.GenerateRequest:
    kv = pb.KvOptions(method="full")
    return pb.GenerateRequest(prompt=prompt, sampling=pb.SamplingOptions(max_new_tokens=tokens), kv=kv)


async def _call(stub: Any, target: Target, tokens: int) -> float:
    began = time.perf_counter()
    await stub.Generate(_request("hello", tokens), metadata=target.metadata)
    return time.perf_counter() - began


async def _stream(stub: Any, target: Target, prompt: str, tokens: int) -> int:
    """Returns the messages that a stream came in."""
    messages = 0
    async for _ in stub.GenerateStream(_request(prompt, tokens), metadata=target.metadata):
        messages += 1
    return messages


async def _paced(stub: Any, target: Target, work: Work) -> tuple[int, float]:
    """Returns the messages of paced streams, and the server's processor seconds less those of as long a rest."""
    rested, seconds = _cpu_s(target.pid), work.paced_tokens * work.pace_ms / 1000
    await asyncio.sleep(seconds)
    idle = (_cpu_s(target.pid) - rested) / seconds
    before, began = _cpu_s(target.pid), time.perf_counter()
    prompt = f"pace {work.pace_ms}"
    counts = await asyncio.gather(*[_stream(stub, target, prompt, work.paced_tokens) for _ in range(work.streams)])
    busy, took = _cpu_s(target.pid) - before, time.perf_counter() - began
    return sum(counts), busy - idle * took


def _cpu_s(pid: int) -> float:
    """Returns the processor seconds of a process and its descendants so far."""
    root = psutil.Process(pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return float(sum(spent.user + spent.system for spent in times))
