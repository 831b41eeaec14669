"""What a comparison found. Times are seconds unless the name says ms."""

from dataclasses import asdict, dataclass, field
from typing import Any

from ...converters.proof.figures import Divergence
from ..bench.figures import Spread
from .advice import Advice
from .contender import Contender

SPEEDS = ("load_s", "prefill_tps", "decode_tps", "streams_tps", "ttft_ms")


@dataclass(slots=True)
class Row:
    """One contender. ``samples`` has a value of each of SPEEDS, and of ``peak_bytes``, for every round it took part in.

    ``kld_note`` says why ``divergence`` is not there; ``error`` in one line why it does not run (any more).
    """

    contender: Contender
    label: str
    engine: str | None = None
    format: str | None = None
    type: str | None = None
    file_bytes: int | None = None
    samples: dict[str, list[float]] = field(default_factory=dict)
    divergence: Divergence | None = None
    is_source: bool = False
    kld_note: str | None = None
    error: str | None = None

    def spread(self, name: str) -> Spread | None:
        """A figure over the rounds."""
        values = self.samples.get(name)
        return Spread.of(values) if values else None

    def median(self, name: str) -> float | None:
        found = self.spread(name)
        return found.median if found else None

    @property
    def peak_bytes(self) -> float | None:
        """The largest of all rounds."""
        return max(self.samples.get("peak_bytes", ()), default=None)

    @property
    def mean_kld(self) -> float | None:
        """Nats; 0 of the source itself."""
        if self.divergence:
            return self.divergence.overall.mean
        return 0.0 if self.is_source else None

    @property
    def top1(self) -> float | None:
        """The share of positions at which it puts the same token first as the source."""
        if self.divergence:
            return self.divergence.overall.top1
        return 1.0 if self.is_source else None

    def add(self, sample: dict[str, float | None]) -> None:
        """What one round found; None is nothing."""
        for name, value in sample.items():
            if value is not None:
                self.samples.setdefault(name, []).append(value)

    def to_json(self, is_on_front: bool) -> dict[str, Any]:
        figures = {name: self.spread(name) for name in SPEEDS}
        return {
            "model": self.contender.model,
            "label": self.label,
            "engine": self.engine,
            "format": self.format,
            "type": self.type,
            "file_bytes": self.file_bytes,
            "figures": {name: asdict(spread) for name, spread in figures.items() if spread},
            "samples": self.samples,
            "peak_bytes": self.peak_bytes,
            "mean_kld": self.mean_kld,
            "top1": self.top1,
            "is_source": self.is_source,
            "divergence": self.divergence and self.divergence.to_json(),
            "kld_note": self.kld_note,
            "is_on_front": is_on_front,
            "error": self.error,
        }


@dataclass(slots=True)
class CompareResult:
    """Everything so far; ``settings`` is what was asked and on which machine. ``ended`` says why it stopped early."""

    settings: dict[str, Any]
    rows: list[Row]
    source: str | None = None
    source_note: str | None = None
    advice: Advice | None = None
    ended: str | None = None

    @property
    def has_failed(self) -> bool:
        return any(row.error for row in self.rows)
