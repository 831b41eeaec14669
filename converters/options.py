"""What a conversion is asked to do."""

from dataclasses import dataclass
from pathlib import Path

from ..runtime.errors import ConversionError
from .targets import Target

AUTO, NONE = "auto", "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """``out`` is a file or a folder. ``imatrix`` is a file, "auto" to collect one, "none", or None: then one is
    collected only for types that cannot be made without it. ``tensor_types`` are (regular expression, type) pairs.

    ``stops`` are stop strings to add to the model's own, ``chat_template`` a built-in name or a file that replaces the
    model's. ``publish`` also makes the model card, the chart and speeds. ConversionError for what contradicts itself.
    """

    targets: tuple[Target, ...]
    out: Path | None = None
    force: bool = False
    verify: bool = True
    clamp: bool = False
    publish: bool = False
    sidecars: bool = True
    imatrix: str | None = None
    calibration: Path | None = None
    proof_text: Path | None = None
    proof_tokens: int = 8192
    tensor_types: tuple[tuple[str, str], ...] = ()
    output_type: str | None = None
    embedding_type: str | None = None
    chat_template: str | None = None
    stops: tuple[str, ...] = ()
    threads: int | None = None
    repo: str | None = None

    def __post_init__(self) -> None:
        if not self.targets:
            raise ConversionError("say what to make with --to, for example --to gguf:Q4_K_M")
        if self.publish and self.out is None:
            raise ConversionError("publishing needs a folder")
        if self.publish and not self.verify:
            raise ConversionError("--publish shows what each file lost: it cannot go with --no-verify")
        if "" in self.stops:
            raise ConversionError("--stop must not be empty")
        if self.proof_tokens < 2:
            raise ConversionError(f"--proof-tokens must be at least 2, not {self.proof_tokens}")
        if self.threads is not None and self.threads < 1:
            raise ConversionError(f"--threads must be at least 1, not {self.threads}")
