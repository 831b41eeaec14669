"""The settings beside the chat, as the browser sends them, and as sampling parameters."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from ...runtime.errors import RequestError
from ...runtime.sampling import SamplingParams

_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}
_WHOLE = {"top_k", "max_tokens", "seed"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What stands in the page's fields, in their order on the page. A blank field asks for the default."""

    system: str = ""
    temperature: str = ""
    top_p: str = ""
    top_k: str = ""
    min_p: str = ""
    max_tokens: str = ""
    seed: str = ""
    stop: str = ""

    def params(self, defaults: Callable[..., SamplingParams]) -> SamplingParams:
        """Sampling parameters: ``defaults`` is the runtime's ``default_params``, the fields override it.

        Raises RequestError for a field that holds no number, or one that makes no sense.
        """
        return defaults(**{name: _number(name, getattr(self, name)) for name in SAMPLING_FIELDS})

    def stops(self) -> list[str]:
        r"""The stop strings: one a line, in which ``\n``, ``\t`` and ``\\`` stand for what they say."""
        return [_unescape(line) for line in self.stop.splitlines() if line]


SAMPLING_FIELDS = tuple(field.name for field in fields(Settings) if field.name not in ("system", "stop"))


def field_text(params: SamplingParams, name: str) -> str:
    """What stands in a field at first: the default, blank when there is none."""
    value: Any = getattr(params, name)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _number(name: str, text: str) -> float | None:
    if not text.strip():
        return None
    try:
        return int(text) if name in _WHOLE else float(text)
    except ValueError:
        kind = "a whole number" if name in _WHOLE else "a number"
        raise RequestError(f"{name} must be {kind}, not {text.strip()!r}", param=name) from None


def _unescape(line: str) -> str:
    text, characters = "", iter(line)
    for character in characters:
        if character != "\\":
            text += character
            continue
        following = next(characters, "")
        text += _ESCAPES.get(following, "\\" + following)
    return text
