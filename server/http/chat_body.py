"""The body of a whole answer to a chat."""

from collections.abc import Callable, Sequence
from typing import Any

from ...runtime.text.types import Answer
from .chat_events import finish_reason
from .logprobs import chat_logprobs
from .tool_calls import ToolCall, ToolCallSplitter
from .usage import usage_body

NewSplitter = Callable[[], ToolCallSplitter | None]


def chat_body(
    head: dict[str, Any], answers: Sequence[Answer], *, logprobs: bool, new_splitter: NewSplitter
) -> dict[str, Any]:
    """The response to a chat that is not streamed."""
    choices = [_choice(idx, answer, logprobs, new_splitter()) for idx, answer in enumerate(answers)]
    return {**head, "choices": choices, "usage": usage_body([[answer.usage for answer in answers]])}


def _choice(idx: int, answer: Answer, logprobs: bool, splitter: ToolCallSplitter | None) -> dict[str, Any]:
    content, calls = _split(answer.content, splitter)
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
    if calls:
        message |= {"content": content or None, "tool_calls": [call.body() for call in calls]}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    return {
        "index": idx,
        "message": message,
        "logprobs": chat_logprobs(answer.tokens, answer.usage.reasoning_tokens) if logprobs else None,
        "finish_reason": finish_reason(answer.finish_reason, bool(calls)),
        "stop_reason": answer.stop_reason,
    }


def _split(text: str, splitter: ToolCallSplitter | None) -> tuple[str, list[ToolCall]]:
    if splitter is None:
        return text, []
    before = splitter.feed(text)
    rest, calls = splitter.finish()
    return before + rest, calls
