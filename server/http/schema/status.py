"""Errors, after Error and ErrorResponse of OpenAI's OpenAPI document, and the server's state."""

from typing import Literal

from .base import ResponseModel


class Error(ResponseModel):
    """What is wrong, with which parameter, and what to do."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(ResponseModel):
    """The body of every response that is no success."""

    error: Error


class Health(ResponseModel):
    """The process is alive."""

    status: Literal["ok"]


class Ready(ResponseModel):
    """Whether requests are answered, and with which model."""

    status: Literal["loading", "ready", "draining", "failed"]
    model: str | None
    detail: str | None
    engine: dict[str, int] | None
