"""The server-sent events of one answer to a chat."""

import json
from typing import TYPE_CHECKING, Any

from ...runtime.text.types import Delta, TokenText, Usage
from .logprobs import chat_logprobs
from .tool_calls import ToolCallSplitter

if TYPE_CHECKING:
    from ...runtime.runtime import TextStream


class ChatEvents:
    """Writes an answer as chunks. What a chunk of text has in common with all others is built once.

    ``usage`` tells whether every chunk has a null ``usage``; the counts come in a chunk of their own.
    """

    def __init__(
        self,
        head: dict[str, Any],
        index: int,
        *,
        usage: bool,
        logprobs: bool,
        splitter: ToolCallSplitter | None,
    ) -> None:
        self._start = f'data: {json.dumps(head)[:-1]}, "choices": [{{"index": {index}, "delta": {{'
        self._end = '}], "usage": null}\n\n' if usage else "}]}\n\n"
        self._content = f'{self._start}"content": '.encode()
        self._reasoning = f'{self._start}"reasoning_content": '.encode()
        self._no_logprobs = f'}}, "logprobs": null, "finish_reason": null{self._end}'.encode()
        self._logprobs = logprobs
        self._splitter = splitter
        self._usage = Usage()
        self._num_tokens = 0

    def begin(self, stream: "TextStream") -> bytes:
        """The first event: whose answer it is."""
        self._usage = stream.usage
        return f'{self._start}"role": "assistant", "content": ""'.encode() + self._no_logprobs

    def delta(self, delta: Delta) -> bytes:
        """A delta's events: one, none while text is held back, or two where reasoning turns into answer."""
        content = self._splitter.feed(delta.content) if self._splitter else delta.content
        tail = self._tail(delta.tokens)
        events = b""
        if delta.reasoning:
            events = self._reasoning + json.dumps(delta.reasoning).encode() + tail
            tail = self._no_logprobs
        if content or (delta.tokens and not events):
            events += self._content + json.dumps(content).encode() + tail
        return events

    def end(self, stream: "TextStream") -> bytes:
        """The last events: what was held back, calls, and why it ended."""
        text, calls = self._splitter.finish() if self._splitter else ("", [])
        events = self._content + json.dumps(text).encode() + self._no_logprobs if text else b""
        if calls:
            chunks = [{"index": idx, **call.body()} for idx, call in enumerate(calls)]
            events += f'{self._start}"tool_calls": {json.dumps(chunks)}'.encode() + self._no_logprobs
        reason = json.dumps(finish_reason(stream.finish_reason, bool(calls)))
        stop = json.dumps(stream.stop_reason)
        last = f'{self._start}}}, "logprobs": null, "finish_reason": {reason}, "stop_reason": {stop}{self._end}'
        return events + last.encode()

    def _tail(self, tokens: tuple[TokenText, ...]) -> bytes:
        if not (self._logprobs and tokens):
            return self._no_logprobs
        # Reasoning comes first, and the count of its tokens is never behind what has been sent.
        num_reasoning = max(0, self._usage.reasoning_tokens - self._num_tokens)
        self._num_tokens += len(tokens)
        logprobs = json.dumps(chat_logprobs(tokens, num_reasoning))
        return f'}}, "logprobs": {logprobs}, "finish_reason": null{self._end}'.encode()


def finish_reason(reason: str | None, has_calls: bool) -> str:
    """Why an answer ended, in OpenAI's words. Calls in an answer that was cut off do not count as its end."""
    return "tool_calls" if has_calls and reason == "stop" else reason or "stop"
