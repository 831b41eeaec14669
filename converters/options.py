"""What a conversion is asked to do."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..runtime.errors import ConversionError
from .gguf.types import tensor_type
from .targets import Target

AUTO, NONE = "auto", "none"
MAX_THREADS = 512
"""ggml's GGML_MAX_N_THREADS."""


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
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            raise ConversionError(f"--threads must be between 1 and {MAX_THREADS}, not {self.threads}")
        self._refuse_what_has_no_effect()
        self._check_types()

    @property
    def quantizing(self) -> dict[str, object]:
        """What was chosen of the options that only quantizing heeds, under their names on the command line."""
        values = {
            "--imatrix": self.imatrix,
            "--calibration": self.calibration,
            "--tensor-type": self.tensor_types,
            "--output-type": self.output_type,
            "--embedding-type": self.embedding_type,
        }
        return {name: value for name, value in values.items() if value not in (None, ())}

    def _refuse_what_has_no_effect(self) -> None:
        if self.proof_text and not self.verify:
            raise ConversionError("--proof-text has no effect with --no-verify")
        if self.calibration and self.imatrix not in (None, AUTO):
            raise ConversionError(f"--calibration has no effect with --imatrix {self.imatrix}")
        if self.repo and not self.publish:
            raise ConversionError("--repo has no effect without --publish")
        if self.repo and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repo, re.ASCII):
            raise ConversionError(f"--repo {self.repo} is no USER/REPO")
        if any(target.format == "gguf" for target in self.targets):
            return
        refuse_without_effect([*(["--publish"] if self.publish else []), *self.quantizing], self.targets)

    def _check_types(self) -> None:
        """Before hours of work, not after."""
        for pattern, _ in self.tensor_types:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConversionError(f"--tensor-type {pattern}: {error} in the regular expression") from error
        for name in (*(name for _, name in self.tensor_types), self.output_type, self.embedding_type):
            if name is not None:
                tensor_type(name)


def refuse_without_effect(names: Iterable[str], targets: Iterable[Target]) -> None:
    """ConversionError for the first of these options, which the user gave and none of the targets heeds."""
    for name in names:
        raise ConversionError(f"{name} has no effect on {', '.join(map(str, targets))}")
