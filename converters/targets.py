"""What to make: ``gguf:Q4_K_M``, ``gguf:all``, ``mlx:4bit``, ``onnx:int4``, ``hf``."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from ..runtime.errors import ConversionError
from .gguf.types import LADDER, quant_type
from .mlx.options import TYPES as MLX_TYPES
from .mlx.options import mlx_type
from .onnx.options import TYPES as ONNX_TYPES

FORMATS = ("gguf", "mlx", "onnx", "hf")
FOLDER_FORMATS = ("mlx", "onnx")
"""Formats whose artifact is a folder made from a checkpoint."""
HF_TYPES = ("BF16", "F16", "F32")
_EXAMPLES = {"gguf": "gguf:Q4_K_M, or gguf:all for the whole ladder", "mlx": "mlx:4bit", "onnx": "onnx:int4"}
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
        raise ConversionError(
            f"--to {text}: no format is called {name!r}{_hint(name)}; formats are {', '.join(FORMATS)}"
        )
    if name == "hf":
        if kind and kind.upper() not in HF_TYPES:
            raise ConversionError(f"--to {text}: a Hugging Face folder is written in BF16, F16 or F32")
        return [Target(name, kind.upper() or OWN_TYPE)]
    if not kind:
        raise ConversionError(f"--to {name}: say which type, for example {_EXAMPLES[name]}")
    if name == "mlx":
        return [Target(name, mlx_type(kind).name)]
    if name == "onnx":
        return [Target(name, _onnx_type(text, kind))]
    if kind == "all":
        return [Target(name, member.name) for member in LADDER if member.published]
    return [Target(name, quant_type(kind).name)]


def _onnx_type(text: str, kind: str) -> str:
    if kind.lower() not in ONNX_TYPES:
        near = _near(kind.lower(), ONNX_TYPES)
        raise ConversionError(f"--to {text}: no ONNX type is called {kind!r}{near}; types are {', '.join(ONNX_TYPES)}")
    return kind.lower()


def _hint(name: str) -> str:
    """What somebody may have meant who wrote a type without its format."""
    if any(member.name == name.upper() for member in LADDER):
        return f", did you mean gguf:{name.upper()}?"
    if name.lower() in MLX_TYPES:
        return f", did you mean mlx:{name.lower()}?"
    if name.lower() in ONNX_TYPES:
        return f", did you mean onnx:{name.lower()}?"
    return _near(name, FORMATS)


def _near(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names)
    return f", did you mean {near[0]!r}?" if near else ""
