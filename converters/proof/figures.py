"""The figures of a divergence: what many positions say, and how sure that is."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .softmax import Comparison

INTERVAL = "95 %, bootstrap over chunks, 1000 resamples"
"""Positions in one text hang together, so whole chunks are drawn again and again, not positions."""
_RESAMPLES = 1000
SHORT_POSITIONS = 64


@dataclass(frozen=True, slots=True)
class Figures:
    """Divergences in nats over ``tokens`` positions. ``low`` and ``high`` bound the mean (see INTERVAL); they are
    None with fewer than two chunks. ``top1`` is the fraction of positions where both put the same token first."""

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

    def to_json(self) -> dict[str, Any]:
        """For the proof file; see ``proof.proof``."""
        shown = {"overall": self.overall, "short": self.short, "long": self.long}
        return {
            "unit": "nats",
            "reference": self.reference.name,
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


def divergence_of(
    candidate: Path, reference: Path, context_tokens: int, chunks: Sequence[Sequence[Comparison]]
) -> Divergence:
    """``chunks`` has per chunk its steps, in order, from its first position on."""
    whole = [_joined(steps) for steps in chunks]
    ranges = {
        "overall": slice(None),
        "short": slice(0, SHORT_POSITIONS),
        "long": slice(long_start(context_tokens), None),
    }
    figures = {name: _figures([_cut(chunk, part) for chunk in whole]) for name, part in ranges.items()}
    assert figures["overall"] is not None
    return Divergence(candidate, reference, context_tokens, len(whole), **figures)  # type: ignore[arg-type]


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
    if len(chunks) < 2:
        return None, None
    sums, sizes = np.array([chunk.sum() for chunk in chunks]), np.array([len(chunk) for chunk in chunks])
    drawn = np.random.default_rng(0).integers(len(chunks), size=(_RESAMPLES, len(chunks)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Six significant digits; what is not finite becomes null, for JSON has no word for it."""
    return {name: _round(value) if isinstance(value, float) else value for name, value in values.items()}


def _round(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None
