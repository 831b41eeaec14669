"""What a conversion is asked to do."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..runtime.errors import ConversionError
from .gguf.types import tensor_type
from .mlx.options import MlxOptions
from .onnx.options import OnnxOptions
from .targets import FOLDER_FORMATS, Target

AUTO, NONE = "auto", "none"
MAX_THREADS = 512
"""ggml's GGML_MAX_N_THREADS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """``out`` is a file or a folder. ``imatrix`` is a file, "auto" to collect one, "none", or None: then one is
    collected only for types that cannot be made without it. ``tensor_types`` are (regular expression, type) pairs.

    ``group_size`` is how many weights of an MLX or ONNX folder share a scale, ``int4_method`` how int4's are found.
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
    proof_tokens: int | None = None
    tensor_types: tuple[tuple[str, str], ...] = ()
    output_type: str | None = None
    embedding_type: str | None = None
    group_size: int | None = None
    int4_method: str | None = None
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
        if self.proof_tokens is not None and self.proof_tokens < 2:
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

    def folder_options(self, target: Target) -> MlxOptions | OnnxOptions:
        """What the writer of an MLX or ONNX folder is told. ConversionError for what does not exist."""
        if target.format == "mlx":
            return MlxOptions(target.type, self.group_size)
        method = self.int4_method if target.type == "int4" else None
        return OnnxOptions(type=target.type, group_size=self.group_size, method=method, clamp=self.clamp)

    def _refuse_what_has_no_effect(self) -> None:
        if self.proof_text and not self.verify:
            raise ConversionError("--proof-text has no effect with --no-verify")
        if self.calibration and self.imatrix not in (None, AUTO):
            raise ConversionError(f"--calibration has no effect with --imatrix {self.imatrix}")
        if self.repo and not self.publish:
            raise ConversionError("--repo has no effect without --publish")
        if self.repo and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repo, re.ASCII):
            raise ConversionError(f"--repo {self.repo} is no USER/REPO")
        formats = {target.format for target in self.targets}
        if self.group_size is not None and not formats & {*FOLDER_FORMATS}:
            refuse_without_effect(["--group-size"], self.targets)
        if self.int4_method is not None and not any(str(target) == "onnx:int4" for target in self.targets):
            refuse_without_effect(["--int4-method"], self.targets)
        if self.clamp and formats == {"mlx"}:
            refuse_without_effect(["--clamp"], self.targets)
        for target in self.targets:
            if target.format in FOLDER_FORMATS:
                self.folder_options(target)
        if "gguf" not in formats:
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
