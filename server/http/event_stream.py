"""A response of server-sent events, written as the tokens come."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...runtime.errors import TapsterError
from ...runtime.text.types import Delta
from .disconnect import on_disconnect
from .errors import as_api_error, error_body
from .merge import merged

if TYPE_CHECKING:
    from ...runtime.runtime import TextStream

DONE = b"data: [DONE]\n\n"


class Events(Protocol):
    """Writes one answer as events; see ChatEvents."""

    def begin(self, stream: "TextStream") -> bytes: ...

    def delta(self, delta: Delta) -> bytes: ...

    def end(self, stream: "TextStream") -> bytes: ...


class EventStream(Response):
    """Streams answers until they end or the client goes.

    The status is sent with the first token, so that a failure before it is a proper error response. One after
    it is an event with an error object, and no ``[DONE]``.
    """

    media_type = "text/event-stream"

    def __init__(self, streams: "Sequence[TextStream]", events: Sequence[Events], last: Callable[[], bytes]) -> None:
        # Not the base class's: it would fix the length of a body that is not there yet.
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})
        self._streams = streams
        self._events = events
        self._last = last
        self._has_started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with on_disconnect(receive, self._cancel):
            try:
                await self._write_answers(send)
            except Exception as error:
                scope["app"].state.holder.observe(error)
                if not self._has_started:
                    raise
                body = json.dumps(error_body(as_api_error(error)))
                await self._send(send, f"data: {body}\n\n".encode(), is_last=True)
                if not isinstance(error, TapsterError):
                    raise
            finally:
                self._cancel()

    async def _write_answers(self, send: Send) -> None:
        begun: set[int] = set()
        running = len(self._streams)
        frames = b""
        async for idx, delta in merged(self._streams):
            stream, events = self._streams[idx], self._events[idx]
            if idx not in begun:
                begun.add(idx)
                frames = events.begin(stream)
            frames += events.end(stream) if delta is None else events.delta(delta)
            running -= delta is None
            if running and frames:
                await self._send(send, frames)
                frames = b""
        await self._send(send, frames + self._last() + DONE, is_last=True)

    async def _send(self, send: Send, body: bytes, is_last: bool = False) -> None:
        if not self._has_started:
            self._has_started = True
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": body, "more_body": not is_last})

    def _cancel(self) -> None:
        for stream in self._streams:
            stream.cancel()


def usage_event(head: dict[str, Any], usage: dict[str, Any]) -> bytes:
    """The event with the token counts and no choices."""
    return f"data: {json.dumps({**head, 'choices': [], 'usage': usage})}\n\n".encode()
