"""Tool calls that a model writes into its answer: ``<tool_call>{"name": …, "arguments": …}</tool_call>``."""

import json
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call; ``arguments`` is JSON text."""

    name: str
    arguments: str
    id: str = field(default_factory=lambda: f"call_{token_hex(12)}")

    def body(self) -> dict[str, Any]:
        """The object of OpenAI's schema."""
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }


class ToolCallSplitter:
    """Splits a growing answer into its text and the calls that follow it.

    Text passes at once, but for a tail that may be the beginning of the opening marker. From that marker on
    everything is held until the answer is finished: only then is it certain whether it was a call.
    """

    def __init__(self, markers: tuple[str, str]) -> None:
        self._open, self._close = markers
        self._held = ""
        self._is_open = False

    def feed(self, text: str) -> str:
        """The text that is certain to be no call."""
        self._held += text
        if self._is_open:
            return ""
        start = self._held.find(self._open)
        self._is_open = start >= 0
        end = start if self._is_open else len(self._held) - _overlap(self._held, self._open)
        passed, self._held = self._held[:end], self._held[end:]
        return passed

    def finish(self) -> tuple[str, list[ToolCall]]:
        """The rest of the text, and the calls. What looks like a call and cannot be read is text."""
        text, calls, rest = "", [], self._held
        while (start := rest.find(self._open)) >= 0:
            inside, _, after = rest[start + len(self._open) :].partition(self._close)
            call = _parsed(inside)
            if call is None:
                text += rest[: len(rest) - len(after)]
            else:
                text += rest[:start]
                calls.append(call)
            rest = after
        text += rest
        return ("" if calls and not text.strip() else text), calls


def _overlap(text: str, marker: str) -> int:
    """The length of the longest end of the text that the marker begins with."""
    return next((size for size in range(len(marker) - 1, 0, -1) if text.endswith(marker[:size])), 0)


def _parsed(text: str) -> ToolCall | None:
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", call.get("parameters", {}))
    return ToolCall(
        call["name"], arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    )
