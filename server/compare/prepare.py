"""Before anything is timed: find every model, read what it is, and choose the source to compare with."""

from pathlib import Path

from ...runtime.engines.registry import choose_engine
from ...runtime.errors import TapsterError
from ...runtime.models import find_model
from .contender import Contender, labels
from .results import Row

WHOLE_TYPES = ("F32", "BF16", "F16", "FP32", "FP16", "FLOAT32", "FLOAT16", "BFLOAT16")
"""What an artifact's type may be called where nothing was lost, or next to nothing."""


class Prepared:
    """A contender that was found: ``path`` is None of one that runs elsewhere. ``is_whole``: of 16 or more bits."""

    def __init__(self, contender: Contender) -> None:
        """Downloads what is on the Hub. TapsterError when it cannot be found or run."""
        self.contender = contender
        self.path: Path | None = None
        self.format, self.type, self.engine = "vllm", None, "vllm"
        self.file_bytes: int | None = None
        self.is_whole = False
        if contender.is_remote:
            return
        profile = find_model(contender.model)
        self.path = profile.path
        self.format, self.type, self.file_bytes = profile.format, profile.file_type, profile.file_bytes
        self.engine = choose_engine(profile.format, contender.engine).name
        self.is_whole = any(self.type.upper().startswith(name) for name in WHOLE_TYPES)

    @property
    def model(self) -> str:
        """What to call it on a command line."""
        return str(self.path or self.contender.model)


def prepare(contenders: tuple[Contender, ...]) -> dict[int, tuple[Row, Prepared | None]]:
    """A row for each, with its error where it cannot even be read; keys count from 0."""
    found: dict[int, tuple[Row, Prepared | None]] = {}
    for index, (contender, label) in enumerate(zip(contenders, labels(contenders), strict=True)):
        row, prepared = Row(contender, label), None
        try:
            prepared = Prepared(contender)
            row.engine, row.format, row.type = prepared.engine, prepared.format, prepared.type
            row.file_bytes = prepared.file_bytes
        except TapsterError as error:
            row.error = str(error)
        found[index] = row, prepared
    return found


def choose_source(candidates: list[tuple[Row, Prepared]]) -> tuple[Prepared | None, str]:
    """The one to measure the others against when nobody named it, and why; None when there is nothing to compare."""
    local = [(row, prepared) for row, prepared in candidates if prepared.path]
    if len(local) < 2:
        return None, "no divergence: there is nothing to compare with; name the unquantized model with --source MODEL"
    whole = [pair for pair in local if pair[1].is_whole]
    row, prepared = max(whole or local, key=lambda pair: pair[1].file_bytes or 0)
    if whole:
        return prepared, f"compared with {row.label}, the largest unquantized one given"
    return prepared, (
        f"compared with {row.label}, the largest given, which is quantized itself ({row.type}): what it lost shows in "
        f"none of the others; --source MODEL names another"
    )
