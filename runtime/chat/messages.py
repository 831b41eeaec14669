"""Messages as a request brings them, made ready for a chat template."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import RequestError

Message = dict[str, Any]

_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")


def checked(messages: object) -> list[Message]:
    """A copy of messages of the right shape: a role, and a text, a list of text parts or null as content.

    Parts come out as ``{"type": "text", "text": …}``. RequestError names the message or part at fault.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes) or not messages:
        raise RequestError("messages must be a list of at least one message", param="messages")
    return [_checked_message(message, f"messages[{idx}]") for idx, message in enumerate(messages)]


def _checked_message(message: object, where: str) -> Message:
    if not isinstance(message, Mapping):
        raise RequestError(f"{where} must be an object, not {type(message).__name__}", param=where)
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise RequestError(f"{where}.role must be a text, not {role!r:.50}", param=f"{where}.role")
    where = f"{where}.content"
    if isinstance(content, list | tuple):
        content = [_checked_part(part, f"{where}[{idx}]") for idx, part in enumerate(content)]
    elif content is not None and not isinstance(content, str):
        kind = type(content).__name__
        raise RequestError(f"{where} must be a text or a list of parts, not {kind}", param=where)
    return {**message, "content": content}


def _checked_part(part: object, where: str) -> Message:
    if not isinstance(part, Mapping):
        raise RequestError(f"{where} must be an object, not {type(part).__name__}", param=where)
    kind = part.get("type")
    if kind not in ("text", "refusal"):
        raise RequestError(f"{where} is of type {kind!r:.50}: this model reads text only", param=where)
    text = part.get(kind)
    if not isinstance(text, str):
        raise RequestError(f"{where}.{kind} must be a text, not {type(text).__name__}", param=where)
    return {"type": "text", "text": text}


def joined(content: str | Sequence[Message] | None) -> str | None:
    """The content as one text: parts are put on lines of their own."""
    if content is None or isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content)


def with_reasoning(message: Message) -> Message:
    """The same message with its reasoning under every name that templates read it by."""
    given = [message[name] for name in _REASONING_FIELDS if message.get(name) is not None]
    if not given:
        return message
    return {**message, **{name: given[0] for name in _REASONING_FIELDS if message.get(name) is None}}


def variants(messages: Sequence[Message], with_nulls: bool) -> Iterator[list[Message]]:
    """The same conversation in the forms that templates expect, the most usual first, none twice.

    Templates disagree on two things. The arguments of a tool call are an object for most and a JSON text for
    some. A null, such as the content of a message that only calls tools, is absent for most; some look for it
    (``with_nulls``), and some cannot do without a text.
    """
    seen: list[list[Message]] = []
    nulls = [_without_nulls, *([_unchanged] if with_nulls else []), _with_empty_content]
    for arguments in (_as_object, _as_text):
        for null in nulls:
            variant = [null(_with_arguments(message, arguments)) for message in messages]
            if variant not in seen:
                seen.append(variant)
                yield variant


def _without_nulls(message: Message) -> Message:
    return {name: value for name, value in message.items() if value is not None}


def _unchanged(message: Message) -> Message:
    return message


def _with_empty_content(message: Message) -> Message:
    return {**_without_nulls(message), "content": message["content"] or ""}


def _with_arguments(message: Message, convert: Callable[[Any], Any]) -> Message:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return {**message, "tool_calls": [_call_with_arguments(call, convert) for call in calls]}


def _call_with_arguments(call: Any, convert: Callable[[Any], Any]) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or "arguments" not in function:
        return call
    return {**call, "function": {**function, "arguments": convert(function["arguments"])}}


def _as_object(arguments: Any) -> Any:
    """The arguments read as JSON. What is none stays text: models write it, and clients send it back."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _as_text(arguments: Any) -> Any:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
