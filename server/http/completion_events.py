"""The server-sent events of one continuation of a prompt."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...runtime.text.types import Delta, TokenText
from .echo import hidden_chars
from .logprobs import CompletionLogprobs

if TYPE_CHECKING:
    from ...runtime.runtime import TextStream


class CompletionEvents:
    """Writes a continuation as chunks, first the prompt when it is echoed. ``usage`` is as in ChatEvents."""

    def __init__(self, head: dict[str, Any], index: int, *, usage: bool, logprobs: bool, echo: str | None) -> None:
        self._start = f'data: {json.dumps(head)[:-1]}, "choices": [{{"index": {index}, "text": '.encode()
        self._end = '}], "usage": null}\n\n' if usage else "}]}\n\n"
        self._no_logprobs = f', "logprobs": null, "finish_reason": null{self._end}'.encode()
        self._logprobs = CompletionLogprobs() if logprobs else None
        self._echo = echo

    def begin(self, stream: "TextStream") -> bytes:
        """The event of the echoed prompt, if any."""
        if self._echo is None:
            return b""
        tokens = stream.prompt_tokens or ()
        if self._logprobs:
            self._logprobs = CompletionLogprobs(hidden_chars(self._echo, tokens))
        return self._event(self._echo, tokens)

    def delta(self, delta: Delta) -> bytes:
        """The event of a delta."""
        return self._event(delta.content, delta.tokens) if delta.content or delta.tokens else b""

    def end(self, stream: "TextStream") -> bytes:
        """The last event: why it ended."""
        reason, stop = json.dumps(stream.finish_reason or "stop"), json.dumps(stream.stop_reason)
        last = f'"", "logprobs": null, "finish_reason": {reason}, "stop_reason": {stop}{self._end}'
        return self._start + last.encode()

    def _event(self, text: str, tokens: Sequence[TokenText]) -> bytes:
        tail = self._no_logprobs
        if self._logprobs and tokens:
            logprobs = json.dumps(self._logprobs.add(tokens))
            tail = f', "logprobs": {logprobs}, "finish_reason": null{self._end}'.encode()
        return self._start + json.dumps(text).encode() + tail
