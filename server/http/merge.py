"""Several streams as one."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...runtime.runtime import TextStream
    from ...runtime.text.types import Delta


async def merged(streams: "Sequence[TextStream]") -> "AsyncIterator[tuple[int, Delta | None]]":
    """The deltas of all streams as they come, each with its stream's index; None is the stream's end.

    The first error of any of them is raised.
    """
    if len(streams) == 1:
        async for delta in streams[0]:
            yield 0, delta
        yield 0, None
        return
    queue: asyncio.Queue[tuple[int, Delta | Exception | None]] = asyncio.Queue()
    pumps = [asyncio.create_task(_pump(idx, stream, queue)) for idx, stream in enumerate(streams)]
    try:
        running = len(pumps)
        while running:
            idx, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            running -= item is None
            yield idx, item
    finally:
        for pump in pumps:
            pump.cancel()


async def _pump(idx: int, stream: "TextStream", queue: "asyncio.Queue[tuple[int, Delta | Exception | None]]") -> None:
    try:
        async for delta in stream:
            queue.put_nowait((idx, delta))
        queue.put_nowait((idx, None))
    except Exception as error:  # noqa: BLE001  handed on: the consumer raises it
        queue.put_nowait((idx, error))
