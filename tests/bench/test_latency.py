"""The latency benchmark's client against its own floor, and its arithmetic."""

import asyncio

import pytest
from typer.testing import CliRunner

from reasonserve.bench.__main__ import app
from reasonserve.bench.latency.load import Turn, Work, run_turn
from reasonserve.bench.latency.noop import NoopEngine, pace_s
from reasonserve.bench.latency.run import BARE, PROCESSES, _process, rows
from reasonserve.kv import KvRequest
from reasonserve.replica.protocol import EngineRequest, Sampling


def turn(target: str, unary_s: float, stream_s: float, paced_messages: int) -> Turn:
    return Turn(
        target=target,
        unary_s=[unary_s] * 50,
        messages=100,
        stream_tokens=100,
        stream_s=stream_s,
        paced_messages=paced_messages,
        cpu_s_per_1000=0.25,
    )


def test_what_is_added_is_against_the_bare_server_of_the_same_turn() -> None:
    turns = [
        turn(BARE, 0.001, 0.01, 300),
        turn("stack", 0.003, 0.03, 100),
        turn("stack", 0.007, 0.05, 100),
        turn(BARE, 0.002, 0.02, 300),
    ]
    bare, stack = rows(turns)
    assert (bare.target, bare.added_p50_ms, bare.added_token_us) == (BARE, 0.0, 0.0)
    assert stack.added_p50_ms == pytest.approx((2 + 5) / 2)
    assert stack.p50_spread_ms == pytest.approx((3.0, 7.0))
    assert stack.added_token_us == pytest.approx((200 + 300) / 2)
    assert stack.tokens_per_message == pytest.approx(3.0)


@pytest.mark.parametrize("name", PROCESSES)
def test_a_server_is_measured_as_it_is(name: str) -> None:
    work = Work(calls=5, stream_tokens=20, streams=2, paced_tokens=10, pace_ms=5)
    with _process(name) as target:
        found = asyncio.run(run_turn(target, work))
    assert (len(found.unary_s), found.stream_tokens, found.paced_messages) == (5, 20, 20)
    assert 0 < found.messages <= 20
    assert found.stream_s > 0


@pytest.mark.parametrize(("prompt", "seconds"), [(b"pace 10", 0.01), (b"hello", 0.0)])
def test_the_prompt_sets_the_pace(prompt: bytes, seconds: float) -> None:
    assert pace_s(prompt) == seconds


async def test_the_engine_makes_what_is_asked() -> None:
    request = EngineRequest(
        request_id="r",
        input_ids=(104,),
        sampling=Sampling(max_new_tokens=7),
        kv=KvRequest(method="full", budget_tokens=0),
    )
    chunks = [chunk async for chunk in NoopEngine().generate(request)]
    assert "".join(chunk.text for chunk in chunks) == "x" * 7
    assert [chunk.finish_reason for chunk in chunks] == [""] * 6 + ["length"]


def test_a_stack_that_is_none_is_refused_with_those_that_are() -> None:
    result = CliRunner().invoke(app, ["latency", "--stack", "another"])
    assert result.exit_code == 2
    assert "'another' is no stack" in result.output
