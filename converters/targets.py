"""What to make: ``gguf:Q4_K_M``, ``gguf:all``, ``hf``."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from ..runtime.errors import ConversionError
from .gguf.types import LADDER, quant_type

FORMATS = ("gguf", "hf")
HF_TYPES = ("BF16", "F16", "F32")
OWN_TYPE = "own"
"""The type of an ``hf`` whose user named none: what the source itself is in."""


@dataclass(frozen=True, slots=True)
class Target:
    """An artifact to make: its format, and the type of its weights (for ``hf`` also OWN_TYPE)."""

    format: str
    type: str

    def __str__(self) -> str:
        return self.format if self.type == OWN_TYPE else f"{self.format}:{self.type}"


def parse_targets(texts: Sequence[str]) -> tuple[Target, ...]:
    """The artifacts that ``texts`` name, each once, in the order given. ConversionError for one we do not know."""
    return tuple(dict.fromkeys(target for text in texts for target in _parse(text)))


def _parse(text: str) -> list[Target]:
    name, _, kind = text.partition(":")
    if name not in FORMATS:
        hint = f", did you mean gguf:{name.upper()}?" if _is_type(name) else _near(name, FORMATS)
        raise ConversionError(f"--to {text}: no format is called {name!r}{hint}; formats are {', '.join(FORMATS)}")
    if name == "hf":
        if kind and kind.upper() not in HF_TYPES:
            raise ConversionError(f"--to {text}: a Hugging Face folder is written in BF16, F16 or F32")
        return [Target(name, kind.upper() or OWN_TYPE)]
    if kind == "all":
        return [Target(name, member.name) for member in LADDER if member.published]
    if not kind:
        raise ConversionError("--to gguf: say which type, for example gguf:Q4_K_M, or gguf:all for the whole ladder")
    return [Target(name, quant_type(kind).name)]


def _is_type(name: str) -> bool:
    return any(member.name == name.upper() for member in LADDER)


def _near(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names)
    return f", did you mean {near[0]!r}?" if near else ""
