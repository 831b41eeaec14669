"""Numbers out of answers: percentiles, the figures of one run, and their spread over repeats."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from statistics import median

from .events import Answer

EXCLUDES = {
    "all": "a short answer before each run; opening the connections; reading the events, done after each run",
    "wall_s": "first request sent to end of the last answer; HTTP, queueing and prefill are inside",
    "throughput_tps": "new tokens of all streams over wall_s; prompt tokens do not count, their prefill does",
    "stream_tps": "tokens after a stream's first, over the time they took; the median of the streams",
    "ttft_ms": "a request sent to its first text; HTTP, queueing and prefill are inside, connecting is not",
    "gap_ms": "from one event with text to the next, in all streams; the first is not inside, and an event "
    "may carry several tokens",
}


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value that ``share`` (0 to 1) of the values lie below, interpolated linearly; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over the repeats."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median(values), min(values), max(values))


def run_figures(answers: Sequence[Answer]) -> dict[str, float | None]:
    """The figures of answers that ran together; None where nothing could be measured."""
    wall_s = wall_time_s(answers)
    new_tokens = sum(answer.new_tokens for answer in answers)
    ttfts = [1000 * answer.ttft_s for answer in answers if answer.ttft_s is not None]
    gaps = [1000 * gap for answer in answers for gap in answer.gaps_s]
    rates = [rate for answer in answers if (rate := stream_rate_tps(answer)) is not None]
    return {
        "wall_s": wall_s,
        "throughput_tps": new_tokens / wall_s,
        "stream_tps": percentile(rates, 0.5),
        "ttft_p50_ms": percentile(ttfts, 0.5),
        "ttft_max_ms": max(ttfts, default=None),
        "gap_p50_ms": percentile(gaps, 0.5),
        "gap_p99_ms": percentile(gaps, 0.99),
        "gap_max_ms": max(gaps, default=None),
    }


def wall_time_s(answers: Sequence[Answer]) -> float:
    """From the first request sent to the end of the last answer."""
    return max(answer.ended_s for answer in answers) - min(answer.sent_s for answer in answers)


def stream_rate_tps(answer: Answer) -> float | None:
    """Tokens a second after the first token; None when all text came at one moment."""
    duration_s = sum(answer.gaps_s)
    return (answer.new_tokens - 1) / duration_s if duration_s else None


def spreads(runs: Sequence[dict[str, float | None]]) -> dict[str, Spread]:
    """The spread of every figure that every run has."""
    columns = {name: [run.get(name) for run in runs] for name in runs[0]}
    return {
        name: Spread.of([value for value in values if value is not None])
        for name, values in columns.items()
        if None not in values
    }
