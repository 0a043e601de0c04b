"""Requests that wait for an engine that dies."""

import asyncio

import pytest

from reasonserve.errors import UnavailableError
from reasonserve.replica.fake_engine import FakeEngine
from reasonserve.replica.watch import EngineWatch


@pytest.fixture
async def watched():
    engine = FakeEngine()
    watch = EngineWatch(engine, period_s=0.01)
    watch.start()
    yield engine, watch
    await watch.stop()


async def wait_for_ever(watch):
    with watch.guard():
        await asyncio.Event().wait()


async def test_whoever_waits_is_told(watched):
    engine, watch = watched
    waiting = [asyncio.create_task(wait_for_ever(watch)) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert not watch.is_dead
    engine.shutdown()
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in told] == [UnavailableError] * 3
    with pytest.raises(UnavailableError):
        await wait_for_ever(watch)


async def test_a_cancelled_request_stays_cancelled(watched):
    engine, watch = watched
    waiting = asyncio.create_task(wait_for_ever(watch))
    await asyncio.sleep(0)
    waiting.cancel()
    engine.shutdown()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_who_is_past_its_wait_is_left_alone(watched):
    engine, watch = watched
    with watch.guard():
        await asyncio.sleep(0)
    engine.shutdown()
    await asyncio.sleep(0.05)
    assert watch.is_dead
