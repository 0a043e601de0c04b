"""One stream of messages from the engine's streams of a request's outputs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from reasonserve.replica.coalesce import Coalescer
from reasonserve.replica.messages import Delta


async def merged(streams: Sequence[AsyncGenerator[Delta, None]], coalescer: Coalescer) -> AsyncGenerator[Delta, None]:
    """Yields the pieces of all streams as the coalescer lets them go; ends when all streams have.

    Whatever ends it closes every stream before it returns. When one fails, what was held back is yielded first.

    Raises:
        Exception: What the first stream that failed raised.
    """
    news = asyncio.Event()

    async def pump(stream: AsyncGenerator[Delta, None]) -> None:
        async with aclosing(stream):
            async for delta in stream:
                coalescer.add(delta)
                news.set()

    loop = asyncio.get_running_loop()
    pumps = [loop.create_task(pump(stream)) for stream in streams]
    for task in pumps:
        task.add_done_callback(lambda _: news.set())
    try:
        while not all(task.done() for task in pumps):
            await _wait(news, coalescer.due_at())
            for delta in coalescer.take(now=loop.time()):
                yield delta
            if any(task.done() and task.exception() for task in pumps):
                break
        for delta in coalescer.flush():
            yield delta
        for task in pumps:
            if task.done():
                task.result()
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _wait(news: asyncio.Event, until: float | None) -> None:
    """Returns when there is news, or at a time of the loop's clock."""
    timer = None if until is None else asyncio.get_running_loop().call_at(until, news.set)
    try:
        await news.wait()
    finally:
        news.clear()
        if timer is not None:
            timer.cancel()
