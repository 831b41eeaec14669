"""Recorded bytes to server-sent events to one answer: its text, when it came, how many tokens it was.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html; only ``data`` fields matter here.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ...runtime.errors import TargetError
from .exchange import Exchange

_TEXT_FIELDS = ("content", "reasoning_content", "reasoning")
_MESSAGE_LIMIT = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """One streamed answer; times are seconds on one monotonic clock.

    ``times_s`` are the arrivals of the events that brought text. ``new_tokens`` is the server's own count, or
    the number of those events where it reports none (``is_counted`` False). ``prompt_tokens`` is None where
    it reports none.
    """

    sent_s: float
    times_s: tuple[float, ...]
    ended_s: float
    text: str
    new_tokens: int
    prompt_tokens: int | None
    is_counted: bool

    @property
    def ttft_s(self) -> float | None:
        """From the request to its first text; None when there was none."""
        return self.times_s[0] - self.sent_s if self.times_s else None

    @property
    def gaps_s(self) -> list[float]:
        """Between an event with text and the next."""
        return [later - earlier for earlier, later in zip(self.times_s, self.times_s[1:], strict=False)]


def split_events(chunks: Iterable[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """The data of every whole event with the time at which its last byte came."""
    pending, data = b"", []
    for time_s, chunk in chunks:
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                data.append(line.removeprefix(b"data:").removeprefix(b" "))
            elif not line and data:
                yield time_s, b"\n".join(data)
                data = []


def read_answer(exchange: Exchange) -> Answer:
    """The answer that a finished exchange recorded. Raises TargetError when it is no whole answer."""
    if exchange.status != 200:
        raise refusal(exchange)
    times, texts, usage, is_whole = [], [], {}, False
    for time_s, data in split_events(exchange.body):
        if data == b"[DONE]":
            is_whole = True
            break
        event = _parse(data)
        usage = event.get("usage") or usage
        for choice in event.get("choices") or ():
            is_whole = is_whole or choice.get("finish_reason") is not None
            if text := _text_of(choice):
                times.append(time_s)
                texts.append(text)
    if not is_whole:
        raise TargetError(f"the stream ended early, after {len(times)} events with text and without a finish_reason")
    counted = usage.get("completion_tokens")
    return Answer(
        sent_s=exchange.sent_s,
        times_s=tuple(times),
        ended_s=exchange.ended_s,
        text="".join(texts),
        new_tokens=len(times) if counted is None else counted,
        prompt_tokens=usage.get("prompt_tokens"),
        is_counted=counted is not None,
    )


def refusal(exchange: Exchange) -> TargetError:
    """What an answer other than 200 says, in one line."""
    if exchange.status is None:
        return TargetError("the server closed the connection without an HTTP answer")
    body = b"".join(chunk for _, chunk in exchange.body)
    try:
        message = _error_message(json.loads(body))
    except ValueError:
        message = body.decode("utf-8", "replace")
    return TargetError(f"the server answered HTTP {exchange.status}: {_one_line(message)}", status=exchange.status)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise TargetError(
            f"the stream carried an event that is no JSON object: {_one_line(data.decode(errors='replace'))}"
        )
    if event.get("error"):
        raise TargetError(f"the stream broke off with an error: {_one_line(_error_message(event))}")
    return event


def _text_of(choice: dict[str, Any]) -> str:
    delta = choice.get("delta")
    if delta is None:
        return choice.get("text") or ""
    return "".join(delta.get(field) or "" for field in _TEXT_FIELDS)


def _error_message(body: Any) -> str:
    error = body.get("error", body.get("detail", body)) if isinstance(body, dict) else body
    message = error.get("message", error) if isinstance(error, dict) else error
    return message if isinstance(message, str) else json.dumps(message)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MESSAGE_LIMIT else f"{line[:_MESSAGE_LIMIT]}…"
