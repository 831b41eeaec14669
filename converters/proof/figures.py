"""The figures of a divergence: what many positions say, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import floor, isfinite, log10
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .softmax import Comparison

BLOCK_POSITIONS, LEAST_BLOCKS = 64, 8
INTERVAL = f"95 %, bootstrap over blocks of about {BLOCK_POSITIONS} positions, 1000 resamples"
"""Neighbouring positions hang together, so blocks are drawn again and again, not positions. A chunk is cut into blocks
of even length."""
_RESAMPLES = 1000
SHORT_POSITIONS = 64


class MeasuredText(NamedTuple):
    """What was run: the text's name and the SHA-256 of its file (None where nobody said), and how much of it."""

    name: str | None
    sha256: str | None
    texts: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Divergences in nats over ``tokens`` positions. ``low`` and ``high`` bound the mean (see INTERVAL); they are
    None with fewer than LEAST_BLOCKS blocks. ``top1`` is the fraction of positions where both put the same token
    first."""

    tokens: int
    mean: float
    low: float | None
    high: float | None
    median: float
    p90: float
    p99: float
    p999: float
    maximum: float
    top1: float
    perplexity: float
    reference_perplexity: float
    perplexity_ratio: float


@dataclass(frozen=True, slots=True)
class Divergence:
    """One candidate against its reference: over all positions, over those within 64 tokens of a text's start, and over
    those in the second half of the context. ``short`` or ``long`` is None where the texts have no such position."""

    candidate: Path
    reference: Path
    context_tokens: int
    chunks: int
    overall: Figures
    short: Figures | None
    long: Figures | None
    text: MeasuredText | None = None

    @classmethod
    def from_json(cls, record: Mapping[str, Any], candidate: Path) -> "Divergence":
        """What ``to_json`` wrote of a candidate. KeyError or TypeError when it is no such record."""
        parts = {name: record[name] and _read_figures(record[name]) for name in ("overall", "short", "long")}
        text = MeasuredText(**record["text"]) if record.get("text") else None
        numbers = record["context_tokens"], record["chunks"]
        return cls(candidate, Path(record["reference"]), *numbers, **parts, text=text)

    def to_json(self) -> dict[str, Any]:
        """For the proof file; see ``proof.proof``."""
        shown = {"overall": self.overall, "short": self.short, "long": self.long}
        return {
            "unit": "nats",
            "reference": self.reference.name,
            "text": self.text and self.text._asdict(),
            "context_tokens": self.context_tokens,
            "chunks": self.chunks,
            "interval": INTERVAL,
            "short_positions": [0, SHORT_POSITIONS],
            "long_positions": [long_start(self.context_tokens), self.context_tokens],
            **{name: figures and _rounded(asdict(figures)) for name, figures in shown.items()},
        }


def long_start(context_tokens: int) -> int:
    """From which position on a position counts as long."""
    return max(SHORT_POSITIONS, context_tokens // 2)


def shown(mean: float, low: float | None = None, high: float | None = None) -> str:
    """A mean for people: two significant digits, or fewer where its interval does not bear them, and half the
    interval, which is never shown as less than one of the last digit. Without exponents, for a table."""
    if not isfinite(mean):
        return str(mean)
    half = (high - low) / 2 if low is not None and high is not None else 0.0
    decimals = max(0, -_decade(mean) + 1) if mean else 1
    if half > 0:
        decimals = max(0, min(decimals, -_decade(half)))
    if not half:
        return f"{mean:.{decimals}f}"
    return f"{mean:.{decimals}f} ± {max(half, 10**-decimals):.{decimals}f}"


def _decade(value: float) -> int:
    """The power of ten of the first digit."""
    return floor(log10(abs(value)))


def divergence_of(
    candidate: Path,
    reference: Path,
    context_tokens: int,
    chunks: Sequence[Sequence[Comparison]],
    text: MeasuredText | None = None,
) -> Divergence:
    """``chunks`` has per chunk its steps, in order, from its first position on."""
    whole = [_joined(steps) for steps in chunks]
    overall = _figures(whole)
    assert overall is not None
    short = _figures([_cut(chunk, slice(0, SHORT_POSITIONS)) for chunk in whole])
    long = _figures([_cut(chunk, slice(long_start(context_tokens), None)) for chunk in whole])
    return Divergence(candidate, reference, context_tokens, len(whole), overall, short, long, text=text)


def _joined(steps: Sequence[Comparison]) -> Comparison:
    names = Comparison.__slots__
    return Comparison(*(np.concatenate([getattr(step, name) for step in steps]) for name in names))


def _cut(chunk: Comparison, part: slice) -> Comparison:
    return Comparison(*(getattr(chunk, name)[part] for name in Comparison.__slots__))


def _figures(chunks: list[Comparison]) -> Figures | None:
    chunks = [chunk for chunk in chunks if len(chunk.divergence)]
    if not chunks:
        return None
    joined = _joined(chunks)
    kld = joined.divergence
    low, high = _interval([chunk.divergence for chunk in chunks])
    median, p90, p99, p999 = (float(value) for value in np.quantile(kld, (0.5, 0.9, 0.99, 0.999)))
    with np.errstate(over="ignore", invalid="ignore"):
        perplexity, reference = np.exp(joined.surprise.mean()), np.exp(joined.reference_surprise.mean())
        ratio = np.exp((joined.surprise - joined.reference_surprise).mean())
    return Figures(
        tokens=len(kld),
        mean=float(kld.mean()),
        low=low,
        high=high,
        median=median,
        p90=p90,
        p99=p99,
        p999=p999,
        maximum=float(kld.max()),
        top1=float(joined.same_top.mean()),
        perplexity=float(perplexity),
        reference_perplexity=float(reference),
        perplexity_ratio=float(ratio),
    )


def _interval(chunks: list[np.ndarray]) -> tuple[float | None, float | None]:
    blocks = [block for chunk in chunks for block in _blocks(chunk)]
    if len(blocks) < LEAST_BLOCKS:
        return None, None
    sums, sizes = np.array([block.sum() for block in blocks]), np.array([len(block) for block in blocks])
    drawn = np.random.default_rng(0).integers(len(blocks), size=(_RESAMPLES, len(blocks)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _blocks(chunk: np.ndarray) -> list[np.ndarray]:
    return np.array_split(chunk, max(1, round(len(chunk) / BLOCK_POSITIONS)))


def _read_figures(values: Mapping[str, Any]) -> Figures:
    """Null is what was not finite, but for the bounds of an interval, which may not be there."""
    return Figures(**{name: _read(name, value) for name, value in values.items()})


def _read(name: str, value: Any) -> Any:
    return float("nan") if value is None and name not in ("low", "high") else value


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Six significant digits; what is not finite becomes null, for JSON has no word for it."""
    return {name: _round(value) if isinstance(value, float) else value for name, value in values.items()}


def _round(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None
