"""The x-request-id header, by which a client and a log can speak of the same request."""

import re
from secrets import token_hex

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SOUND = re.compile(rb"[\x21-\x7e]{1,128}")


class RequestId:
    """Middleware: every response carries the request's own x-request-id, or a new one; so does the scope."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given if _SOUND.fullmatch(given) else b"req_" + token_hex(12).encode()
        scope["request_id"] = request_id.decode()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        await self._app(scope, receive, send_with_id)
