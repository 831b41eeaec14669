"""Which one to run: a rule that fits in a sentence, and the front of those that no other beats in both respects."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ...converters.proof.figures import shown
from ..bench.figures import Spread

RULE = "the fastest single stream among those whose mean KLD is at most --max-kld; of equally fast ones the closest"
RULE_WITHOUT_KLD = "the fastest single stream; what each loses was not measured"


class Judged(Protocol):
    """What the rule looks at."""

    label: str

    @property
    def mean_kld(self) -> float | None: ...
    @property
    def peak_bytes(self) -> float | None: ...
    def spread(self, name: str) -> Spread | None: ...


@dataclass(frozen=True, slots=True)
class Advice:
    """``label`` is the one to run, ``text`` a sentence that says why, ``about_as_fast`` those of the others that may be
    chosen whose fastest run reached its slowest."""

    label: str
    text: str
    rule: str
    about_as_fast: tuple[str, ...] = ()


def advise(rows: Sequence[Judged], max_kld: float, source: str | None) -> Advice | None:
    """The recommendation; None when nothing was timed."""
    timed = [row for row in rows if row.spread("decode_tps")]
    if not timed:
        return None
    compared = [row for row in timed if row.mean_kld is not None]
    if len(compared) < min(2, len(timed)):  # the source alone is nothing to choose from
        best = max(timed, key=_rate)
        others = _about_as_fast(best, timed)
        text = f"Run {best.label}: it is the fastest, at {_rate(best):.0f} tokens/s; what each loses was not measured"
        return Advice(best.label, f"{text}{_also(others)}.", RULE_WITHOUT_KLD, others)
    close = [row for row in compared if _kld(row) <= max_kld]
    if not close:
        best = min(compared, key=lambda row: (_kld(row), -_rate(row)))
        text = (
            f"None is within {max_kld:g} nats of {source}. {best.label} is the closest, at {shown(_kld(best))} nats "
            f"and {_rate(best):.0f} tokens/s; --max-kld allows more."
        )
        return Advice(best.label, text + _without(timed), RULE)
    best = max(close, key=lambda row: (_rate(row), -_kld(row)))
    others = _about_as_fast(best, close)
    place = f"the fastest of the {len(close)}" if len(close) > 1 else "the only one"
    text = f"Run {best.label}: {place} within {max_kld:g} nats of {source}, at {_rate(best):.0f} tokens/s and "
    return Advice(best.label, f"{text}{shown(_kld(best))} nats{_also(others)}.{_without(timed)}", RULE, others)


def front(rows: Sequence[Judged]) -> list[Judged]:
    """Those that no other beats in one respect without losing in the other: tokens a second, and the divergence, or
    without any divergence the memory."""
    has_kld = any(row.mean_kld is not None for row in rows)
    points = [(row, point) for row in rows if (point := _point(row, has_kld))]
    return [row for row, point in points if not any(_beats(other, point) for _, other in points)]


def _point(row: Judged, has_kld: bool) -> tuple[float, float] | None:
    """Both better when smaller."""
    cost = row.mean_kld if has_kld else row.peak_bytes
    return None if cost is None or not row.spread("decode_tps") else (-_rate(row), cost)


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


def _about_as_fast(best: Judged, rows: Sequence[Judged]) -> tuple[str, ...]:
    return tuple(row.label for row in rows if row is not best and _spread(row).max >= _spread(best).min)


def _also(labels: Sequence[str]) -> str:
    if not labels:
        return ""
    return f" (within the scatter of the runs {', '.join(labels)} {'is' if len(labels) == 1 else 'are'} as fast)"


def _without(timed: Sequence[Judged]) -> str:
    names = [row.label for row in timed if row.mean_kld is None]
    return f" Not compared, so not recommended: {', '.join(names)}." if names else ""


def _rate(row: Judged) -> float:
    return _spread(row).median


def _spread(row: Judged) -> Spread:
    found = row.spread("decode_tps")
    assert found is not None
    return found


def _kld(row: Judged) -> float:
    assert row.mean_kld is not None
    return row.mean_kld
