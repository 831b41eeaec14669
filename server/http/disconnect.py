"""Noticing that a client has gone away, at once and without asking at every token."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.types import Receive


@asynccontextmanager
async def on_disconnect(receive: Receive, act: Callable[[], object]) -> AsyncIterator[None]:
    """Call ``act`` as soon as the client is gone, while the body of the ``with`` runs.

    One task waits for the server's own notice; the request's body must have been read.
    """
    watcher = asyncio.create_task(_wait_and(receive, act))
    try:
        yield
    finally:
        watcher.cancel()


async def _wait_and(receive: Receive, act: Callable[[], object]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    act()
