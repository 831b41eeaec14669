"""A running sequence as the event loop sees it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from ...errors import TapsterError
from ..base import Token


class LocalGeneration:
    """The tokens of one sequence as they come; see ``engines.base.Generation``. Lives on the event loop's thread."""

    def __init__(self, on_cancel: Callable[[int], None]) -> None:
        self.finish_reason: str | None = None
        self.cached_tokens = 0
        self.prompt_logprobs: list[Token] | None = None
        self.num_delivered = 0
        self._on_cancel = on_cancel
        self._tokens: deque[Token] = deque()
        self._error: TapsterError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> AsyncIterator[Token]:
        return self

    async def __anext__(self) -> Token:
        while not self._tokens:
            if self._error:
                raise self._error
            if self.finish_reason:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self.num_delivered += 1
        return self._tokens.popleft()

    def cancel(self, keep_tokens: int | None = None) -> None:
        """See ``engines.base.Generation.cancel``."""
        if self.finish_reason or self._error:
            return
        self.finish_reason = "cancelled"
        self._tokens.clear()
        self._on_cancel(self.num_delivered if keep_tokens is None else keep_tokens)
        self._wake()

    def abort(self, error: TapsterError) -> None:
        """End with an error, and free the sequence."""
        if not self.finish_reason and not self._error:
            self._error = error
            self._tokens.clear()
            self._on_cancel(self.num_delivered)
            self._wake()

    def abandon(self) -> None:
        """Free the sequence; nobody is listening."""
        if not self.finish_reason:
            self.finish_reason = "cancelled"
            self._on_cancel(self.num_delivered)

    def push(self, token: Token | None, finish: str | None) -> None:
        """The engine delivers a token, the end, or both. Ignored after a cancel."""
        if self.finish_reason or self._error:
            return
        if token is not None:
            self._tokens.append(token)
        self.finish_reason = finish
        self._wake()

    def fail(self, error: TapsterError) -> None:
        """The engine is gone."""
        if not self.finish_reason:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._waiter = None
