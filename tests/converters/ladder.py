"""Every type of the ladder of one model, made once, with and without an importance matrix."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tapster.converters.gguf.quantize import Quantizer, QuantizeReport
from tapster.converters.gguf.types import LADDER


@dataclass
class Ladder:
    """Quantizes on demand. Keys are names of types; ``imatrix`` is used or not."""

    source: Path
    imatrix: Path
    folder: Path
    quantizer: Quantizer
    reports: dict[Path, QuantizeReport] = field(default_factory=dict)

    def make(self, name: str, *, with_imatrix: bool) -> Path:
        """The file of this type."""
        path = self.folder / f"{'with' if with_imatrix else 'without'}-{name}.gguf"
        if path not in self.reports:
            imatrix = self.imatrix if with_imatrix else None
            self.reports[path] = self.quantizer.quantize(self.source, path, name, imatrix=imatrix)
        return path

    def all(self) -> Sequence[Path]:
        """One file of each type."""
        return [self.make(kind.name, with_imatrix=kind.bits < 5) for kind in LADDER]
