"""What vLLM says instead of an answer, as the error that our client gets: one line, with vLLM's own reason."""

import json
from dataclasses import dataclass
from typing import Any

from ...errors import EngineError, Overloaded, RequestError, TapsterError
from .request import OUR_NAMES

_BUSY = (429, 503)
_WRONG_KEY = (401, 403)
_BAD_REQUEST = (400, 413, 422)
_MOST_MESSAGE = 500


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP status other than 200, or an error in the middle of a stream."""

    status: int
    message: str
    param: str | None = None
    retry_after_s: float = 1.0

    @classmethod
    def read(cls, status: int, body: bytes, retry_after: str | None = None) -> "Refusal":
        """From an HTTP answer, whatever its body is."""
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = body.decode("utf-8", "replace")
        message, param = _message_and_param(content)
        return cls(status, message, param, _seconds(retry_after))

    @classmethod
    def of_event(cls, content: Any) -> "Refusal":
        """From the error object of an event; its code is a status."""
        code = content.get("code") if isinstance(content, dict) else None
        message, param = _message_and_param(content)
        return cls(code if isinstance(code, int) else 500, message, param)

    @property
    def is_for_everyone(self) -> bool:
        """Whether another server would say the same."""
        return self.status in _BAD_REQUEST

    def as_error(self, where: object) -> TapsterError:
        """The error for the client, of the server at ``where``."""
        server = f"vLLM at {where}"
        if self.status in _BAD_REQUEST:
            return RequestError(f"{server} refuses the request: {self.message}", self._our_param())
        if self.status in _BUSY:
            return Overloaded(f"{server} has no room: {self.message}", self.retry_after_s)
        if self.status in _WRONG_KEY:
            return EngineError(f"{server} does not take the API key (HTTP {self.status}): set VLLM_API_KEY")
        if self.status == 404 and self.message.startswith("<"):
            return EngineError(f"{where} answers with a web page (HTTP 404): is it vLLM that listens there?")
        return EngineError(f"{server} failed with HTTP {self.status}: {self.message}")

    def _our_param(self) -> str | None:
        """vLLM names the parameter of most errors, but not of a grammar that it cannot read."""
        if self.param is None and "grammar" in self.message.lower():
            return "grammar"
        return OUR_NAMES.get(self.param or "", self.param)


def _message_and_param(content: Any) -> tuple[str, str | None]:
    """vLLM has put its message into ``error.message`` or ``message``, FastAPI puts its own into ``detail``."""
    param = None
    if isinstance(content, dict):
        content = content.get("error", content)
    if isinstance(content, dict):
        param = content.get("param")
        content = content.get("message") or content.get("detail") or ""
    text = " ".join(str(content).split())
    if len(text) > _MOST_MESSAGE:
        text = text[: _MOST_MESSAGE - 1] + "…"
    return text or "no reason given", param if isinstance(param, str) else None


def _seconds(text: str | None) -> float:
    try:
        return min(max(float(text or 1), 0.0), 3600.0)
    except ValueError:  # a date
        return 1.0
