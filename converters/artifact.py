"""What a conversion has made."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .proof.figures import Divergence
from .proof.proof import Proof
from .targets import Target


@dataclass(frozen=True, slots=True)
class Artifact:
    """One finished artifact. ``fallbacks`` maps a tensor whose rows are no whole blocks to the type it has instead,
    ``clamped`` one to how many of its values were cut off. A failed one lies under ``path`` with ``.rejected`` added.
    """

    target: Target
    path: Path
    seconds: float
    proof: Proof | None = None
    divergence: Divergence | None = None
    fallbacks: dict[str, str] = field(default_factory=dict)
    clamped: dict[str, int] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """What its proof found wrong."""
        return self.proof.failures if self.proof else []

    @property
    def num_bytes(self) -> int:
        """Of the file, or of all files in the folder."""
        if not self.path.is_dir():
            return self.path.stat().st_size
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` prints of it."""
        return {
            "path": str(self.path),
            "format": self.target.format,
            "type": self.target.type,
            "bytes": self.num_bytes,
            "seconds": round(self.seconds, 2),
            "fallbacks": self.fallbacks,
            "clamped": self.clamped,
            "failures": self.failures,
            "proof": self.proof.record if self.proof else None,
        }
