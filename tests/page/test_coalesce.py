"""Many small deltas become few larger updates, and nothing is lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapster.server.page.coalesce import coalesce


async def _numbers(count: int, pauses: set[int]) -> AsyncIterator[int]:
    for number in range(count):
        if number in pauses:
            await asyncio.sleep(0.003)
        yield number


@given(st.integers(0, 40), st.sets(st.integers(0, 40), max_size=4))
def test_every_item_comes_once_and_in_order(count: int, pauses: set[int]) -> None:
    async def collected() -> list[int]:
        return [item async for batch in coalesce(_numbers(count, pauses), 0.002) for item in batch]

    assert asyncio.run(collected()) == list(range(count))


async def test_what_comes_together_is_one_batch() -> None:
    assert [batch async for batch in coalesce(_numbers(100, set()), 60)] == [list(range(100))]


async def test_a_silent_stream_still_gives_the_consumer_a_turn() -> None:
    go_on = asyncio.Event()

    async def silent() -> AsyncIterator[int]:
        await go_on.wait()
        yield 1

    batches = []
    async for batch in coalesce(silent(), 0.001):
        batches.append(batch)
        go_on.set()
    assert batches[0] == []
    assert batches[-1] == [1]


async def test_an_error_comes_after_what_came_before_it() -> None:
    async def failing() -> AsyncIterator[int]:
        yield 1
        raise ValueError("broken")

    batches = coalesce(failing(), 60)
    assert await anext(batches) == [1]
    with pytest.raises(ValueError, match="broken"):
        await anext(batches)


async def test_leaving_early_stops_the_source() -> None:
    is_closed = asyncio.Event()

    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0)
        finally:
            is_closed.set()

    batches = coalesce(endless(), 0.001)
    await anext(batches)
    await batches.aclose()
    await asyncio.wait_for(is_closed.wait(), 10)
