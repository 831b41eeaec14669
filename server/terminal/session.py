"""A conversation in the terminal: what was said, the settings, and what the /commands change."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...runtime.errors import ConfigError, RequestError
from ...runtime.sampling import SamplingParams

_SETTINGS: dict[str, Callable[[str], Any]] = {
    "temperature": float,
    "top_p": float,
    "min_p": float,
    "top_k": int,
    "max_tokens": int,
    "seed": int,
    "repeat_penalty": float,
    "stop": str,
}


@dataclass(slots=True)
class ChatSession:
    """The messages so far and how the next answer is made."""

    system: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    shows_stats: bool = False

    def prompt_messages(self) -> list[dict[str, str]]:
        """What is sent to the model."""
        head = [{"role": "system", "content": self.system}] if self.system else []
        return head + self.messages

    def sampling(self) -> dict[str, Any]:
        """The settings that are sampling parameters."""
        return {name: value for name, value in self.settings.items() if name != "stop"}

    def stops(self) -> list[str]:
        """The user's stop strings."""
        return [self.settings["stop"]] if self.settings.get("stop") else []

    def undo(self) -> str | None:
        """Take back the last question and its answer. Returns the question."""
        while self.messages:
            message = self.messages.pop()
            if message["role"] == "user":
                return message["content"]
        return None

    def set(self, name: str, value: str) -> None:
        """Change a setting; an empty value forgets it. ConfigError when there is no such setting or value."""
        convert = _SETTINGS.get(name)
        if convert is None:
            raise ConfigError(f"there is no setting {name!r}: choose from {', '.join(_SETTINGS)}")
        if not value:
            self.settings.pop(name, None)
            return
        try:
            converted: Any = unescaped(value) if convert is str else convert(value)
            if name != "stop":
                replace(SamplingParams(), **{name: converted})
        except (ValueError, RequestError) as error:
            raise ConfigError(f"{name} cannot be {value!r}: {error}") from error
        self.settings[name] = converted

    def save(self, path: str) -> None:
        """Write the conversation as JSON in OpenAI's message format."""
        try:
            Path(path).expanduser().write_text(json.dumps(self.prompt_messages(), indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error

    def load(self, path: str) -> None:
        """Take up a conversation that ``save`` wrote."""
        try:
            messages = json.loads(Path(path).expanduser().read_text())
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"{path} is not JSON: {error}") from error
        if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
            raise ConfigError(f"{path} is not a list of messages with role and content")
        self.system = next((m["content"] for m in messages if m["role"] == "system"), None)
        self.messages = [m for m in messages if m["role"] != "system"]


def unescaped(text: str) -> str:
    """Reads ``\\n`` and the like as the characters they stand for. ValueError when it is no escape."""
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape")


def _is_message(message: object) -> bool:
    return (
        isinstance(message, dict)
        and message.get("role") in ("system", "user", "assistant")
        and isinstance(message.get("content"), str)
    )
