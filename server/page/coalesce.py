"""Many small deltas into few larger updates: one update of the browser costs far more than a token."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from typing import TypeVar

T = TypeVar("T")


async def coalesce(items: AsyncIterable[T], interval_s: float) -> AsyncGenerator[list[T]]:
    """What came in each interval, in order; the last batch is what was left.

    A batch may be empty, so that the consumer gets a turn also while the model reads a long prompt. Items are
    taken as they come, however slow the consumer is. An error of ``items`` is raised after what came before.
    """
    batch: list[T] = []

    async def collect() -> None:
        async for item in items:
            batch.append(item)

    collector = asyncio.create_task(collect())
    try:
        while not collector.done():
            await asyncio.wait((collector,), timeout=interval_s)
            ready, batch = batch, []
            yield ready
        collector.result()
    finally:
        collector.cancel()
