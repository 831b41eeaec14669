"""One line of a published ladder, and which of them to choose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..proof.figures import Divergence
from .speed import Speed

THRESHOLDS = (
    ("Hardly to be told from 16 bits", 0.01),
    ("Recommended", 0.05),
    ("For little memory", 0.2),
    ("The least that is of use", 0.6),
)
"""Mean KL divergences in nats. The smallest file that stays below is the one named."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the ladder. ``divergence`` is None for 16 bits, ``speed`` where it was not measured.

    ``imatrix`` is what its proof says of the importance matrix (file, sha256; None: made without one), ``fallbacks``
    has the tensors of another type because of their rows, ``tensors`` how many there are of each type.
    """

    path: Path
    type: str
    file_bytes: int
    bits_per_weight: float
    divergence: Divergence | None = None
    speed: Speed | None = None
    imatrix: Mapping[str, Any] | None = None
    fallbacks: Mapping[str, str] = field(default_factory=dict)
    tensors: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def from_record(cls, path: Path, record: Mapping[str, Any], speed: Speed | None = None) -> "Entry":
        """The file at ``path`` as its proof describes it. KeyError, TypeError and the like when that is no proof."""
        artifact, checks = record["artifact"], record["checks"] if record["verified"] else {}
        found = checks.get("divergence", {"measured": False})
        types = checks.get("tensors", {"types": {}})["types"]
        return cls(
            path=path,
            type=artifact["type"],
            file_bytes=artifact["bytes"],
            bits_per_weight=artifact["bits_per_weight"],
            divergence=Divergence.from_json(found, path) if found["measured"] else None,
            speed=speed,
            imatrix=record.get("recipe", {}).get("imatrix"),
            fallbacks=artifact.get("fallbacks", {}),
            tensors={name: values["tensors"] for name, values in types.items()},
        )

    @property
    def megabytes(self) -> float:
        return self.file_bytes / 1e6


def family(type_name: str) -> str:
    """``K`` types, ``IQ`` types, or the ``other``, simple ones."""
    if type_name.startswith("IQ"):
        return "IQ"
    return "K" if "_K" in type_name else "other"


def choices(entries: Sequence[Entry]) -> list[tuple[str, float, Entry]]:
    """For each of THRESHOLDS, what it is good for, the threshold, and its smallest file; none twice."""
    measured = [entry for entry in entries if entry.divergence is not None]
    found: list[tuple[str, float, Entry]] = []
    for purpose, threshold in THRESHOLDS:
        fitting = [entry for entry in measured if _mean(entry) <= threshold]
        best = min(fitting, key=lambda entry: (entry.file_bytes, _mean(entry)), default=None)
        if best and all(best is not entry for _, _, entry in found):
            found.append((purpose, threshold, best))
    return found


def recommended(entries: Sequence[Entry]) -> Entry:
    """The one to take without further thought: the smallest below the threshold for that, else the one that lost
    least, else (nothing measured) the largest."""
    measured = [entry for entry in entries if entry.divergence is not None]
    fitting = [entry for entry in measured if _mean(entry) <= dict(THRESHOLDS)["Recommended"]]
    if fitting:
        return min(fitting, key=lambda entry: (entry.file_bytes, _mean(entry)))
    return min(measured, key=_mean) if measured else max(entries, key=lambda entry: entry.file_bytes)


def is_beaten(entry: Entry, entries: Sequence[Entry]) -> bool:
    """Whether another file is no larger and lost less."""
    if entry.divergence is None:
        return False
    return any(
        other.file_bytes <= entry.file_bytes and _mean(other) < _mean(entry)
        for other in entries
        if other.divergence is not None and other is not entry
    )


def _mean(entry: Entry) -> float:
    assert entry.divergence is not None
    return entry.divergence.overall.mean
