"""Errors as OpenAI's clients expect them: a status, and an object with message, type, param and code."""

from collections.abc import Mapping
from math import ceil
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from ...runtime.errors import EngineError, Overloaded, RequestError, TapsterError

MAX_MESSAGE_CHARS = 1000


class ApiError(HTTPException):
    """An error that a client sees."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.param = param
        self.code = code


def bad_request(message: str, param: str | None = None, code: str | None = "invalid_value") -> ApiError:
    """The request is wrong, and nothing ran."""
    return ApiError(400, message, param=param, code=code)


def unavailable(message: str, code: str, retry_after_s: int) -> ApiError:
    """The server cannot answer now."""
    return ApiError(503, message, code=code, headers={"retry-after": str(retry_after_s)})


def as_api_error(error: Exception) -> ApiError:
    """What the client sees of an error. Unexpected ones show nothing of the inside."""
    match error:
        case ApiError():
            return error
        case RequestError():
            return bad_request(str(error), error.param, error.code or "invalid_value")
        case Overloaded():
            retry = {"retry-after": str(max(1, ceil(error.retry_after_s)))}
            return ApiError(429, str(error), code="overloaded", headers=retry)
        case EngineError() if error.is_shutdown:
            return unavailable(str(error), "shutting_down", 5)
        case TapsterError():
            return ApiError(500, str(error), code="engine_error")
        case _:
            return ApiError(500, "the server failed on this request: see its log", code="internal_error")


def http_error(error: HTTPException, method: str, path: str) -> ApiError:
    """The framework's own errors in our words."""
    where = path[:100]
    match error.status_code:
        case 404:
            return ApiError(404, f"there is no {where} here: see /docs", code="unknown_url")
        case 405:
            allowed = (error.headers or {}).get("allow") or (error.headers or {}).get("Allow")
            message = f"{where} does not take {method}, only {allowed}"
            return ApiError(405, message, code="method_not_allowed", headers=error.headers)
        case _:
            return ApiError(error.status_code, str(error.detail), headers=error.headers)


def error_body(error: ApiError) -> dict[str, Any]:
    """The error object."""
    message = error.detail
    if len(message) > MAX_MESSAGE_CHARS:
        message = message[:MAX_MESSAGE_CHARS] + " …"
    return {"error": {"message": message, "type": _type(error), "param": error.param, "code": error.code}}


def error_response(error: ApiError) -> JSONResponse:
    """The error as a response."""
    return JSONResponse(error_body(error), error.status_code, error.headers)


def _type(error: ApiError) -> str:
    if error.status_code == 429:
        return "rate_limit_error"
    return "server_error" if error.status_code >= 500 else "invalid_request_error"
