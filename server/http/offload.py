"""Preparing large requests beside the event loop, so that running streams do not wait for them."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from fastapi import Request

INLINE_BYTES = 32_768
"""A body up to this size is prepared at once: that takes a few milliseconds, and a thread would cost more."""

T = TypeVar("T")


async def prepared(request: Request, work: Callable[[], T]) -> T:
    """What ``work`` makes of the request's body. Of a large one it does so in a thread, so it must change nothing."""
    is_small = len(await request.body()) <= INLINE_BYTES
    return work() if is_small else await asyncio.to_thread(work)
