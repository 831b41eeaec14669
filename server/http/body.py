"""Reading a JSON body that nobody vouches for."""

import json
import re
from collections.abc import Callable, Coroutine
from math import isfinite
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from .errors import ApiError, bad_request

MAX_DEPTH = 100

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_JSON_TYPE = re.compile(r"application/([\w.-]+\+)?json\s*(;|$)", re.IGNORECASE)


class JsonRequest(Request):
    """A request whose body is read up to a limit, and is strict JSON."""

    async def body(self) -> bytes:
        """The bytes, or 400 when there are too many. What is beyond the limit is not kept."""
        if not hasattr(self, "_limited"):
            limit = self.app.state.settings.max_body_bytes
            declared = self.headers.get("content-length", "")
            if declared.isdecimal() and int(declared) > limit:
                raise _too_large(limit)
            body = bytearray()
            async for chunk in self.stream():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
            self._limited = bytes(body)
        return self._limited

    async def json(self) -> Any:
        """The parsed body."""
        return parse_json(await self.body())


class JsonRoute(APIRoute):
    """A route that answers only while the model does, and reads its body as JsonRequest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler with those checks in front."""
        handler = super().get_route_handler()

        async def checked(request: Request) -> Response:
            request.app.state.holder.require()
            if request.method == "POST":
                # Browsers send other types across origins without asking first, so one must not do.
                if not _JSON_TYPE.match(request.headers.get("content-type", "")):
                    raise bad_request("the body must be JSON, sent with Content-Type: application/json")
                request = JsonRequest(request.scope, request.receive)
            return await handler(request)

        return checked


def parse_json(body: bytes) -> Any:
    """The value. 400 for what is no UTF-8 or no JSON, for NaN, infinities, half characters, deep nesting."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise bad_request(f"the body is not UTF-8: byte {error.start} is {body[error.start]:#04x}") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise bad_request(f"the body is not valid JSON: {error}", code="invalid_json") from None
    # The two checks that walk the value are skipped where the bytes show that they cannot fail.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _check_depth(value)
    if _SURROGATE.search(body):
        _check_text(value)
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
        if not level:
            return
    raise _too_deep()


def _children(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _check_text(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise bad_request(f"the body has {half}, half of a surrogate pair, which is no text") from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def _too_large(limit: int) -> ApiError:
    return bad_request(f"the body is larger than {limit} bytes", param="body", code="body_too_large")


def _too_deep() -> ApiError:
    return bad_request(f"the body is nested more than {MAX_DEPTH} levels deep", code="invalid_json")
