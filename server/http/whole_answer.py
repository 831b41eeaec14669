"""A response with a whole answer, made while the client waits."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...runtime.text.types import Answer
from .disconnect import on_disconnect

if TYPE_CHECKING:
    from ...runtime.runtime import TextStream


class WholeAnswer(Response):
    """Collects answers until they end or the client goes, then sends what ``build`` makes of them."""

    def __init__(self, streams: "Sequence[TextStream]", build: Callable[[Sequence[Answer]], dict[str, Any]]) -> None:
        # Not the base class's: there is no body to measure yet.
        self.status_code = 200
        self.background = None
        self._streams = streams
        self._build = build
        self._is_gone = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with on_disconnect(receive, self._give_up):
            try:
                answers = await asyncio.gather(*(stream.collect() for stream in self._streams))
            finally:
                self._cancel()
        if not self._is_gone:
            body = json.dumps(self._build(answers)).encode()
            await Response(body, media_type="application/json")(scope, receive, send)

    def _give_up(self) -> None:
        self._is_gone = True
        self._cancel()

    def _cancel(self) -> None:
        for stream in self._streams:
            stream.cancel()
