"""The rule, on rows worked out by hand."""

from dataclasses import dataclass

import pytest

from tapster.server.bench.figures import Spread
from tapster.server.compare.advice import RULE_WITHOUT_KLD, advise, front


@dataclass
class Line:
    label: str
    rates: tuple[float, ...]
    mean_kld: float | None = None
    peak_bytes: float | None = None

    def spread(self, name: str) -> Spread | None:
        assert name == "decode_tps"
        return Spread.of(self.rates) if self.rates else None


SOURCE = Line("source", (20, 20, 20), 0.0)
CLOSE = Line("close", (90, 93, 96), 0.02)
FAST = Line("fast", (140, 146, 150), 0.30)
SLOW = Line("slow", (50, 50, 50), 0.10)
ROWS = [SOURCE, CLOSE, FAST, SLOW]


@pytest.mark.parametrize(
    ("max_kld", "label", "words"),
    [
        (0.1, "close", "Run close: the fastest of the 3 within 0.1 nats of source, at 93 tokens/s and 0.020 nats."),
        (0.3, "fast", "Run fast: the fastest of the 4 within 0.3 nats of source, at 146 tokens/s and 0.30 nats."),
        (0.01, "source", "Run source: the only one within 0.01 nats of source, at 20 tokens/s and 0.0 nats."),
    ],
)
def test_the_fastest_within_the_threshold(max_kld: float, label: str, words: str) -> None:
    advice = advise(ROWS, max_kld, "source")
    assert advice is not None
    assert (advice.label, advice.text) == (label, words)


def test_none_within_the_threshold_is_said() -> None:
    advice = advise([FAST, SLOW], 0.05, "big")
    assert advice is not None
    assert advice.label == "slow"
    assert advice.text.startswith("None is within 0.05 nats of big. slow is the closest, at 0.10 nats and 50 tokens/s")


def test_runs_that_overlap_are_about_as_fast() -> None:
    near = Line("near", (80, 88, 90), 0.01)
    advice = advise([*ROWS, near], 0.1, "source")
    assert advice is not None
    assert (advice.label, advice.about_as_fast) == ("close", ("near",))
    assert "within the scatter of the runs near is as fast" in advice.text


def test_of_equally_fast_ones_the_closest() -> None:
    advice = advise([Line("far", (5,), 0.09), Line("nearer", (5,), 0.01)], 0.1, "source")
    assert advice is not None
    assert advice.label == "nearer"


def test_without_divergences_the_fastest() -> None:
    advice = advise([Line("a", (3,)), Line("b", (4,)), Line("failed", ())], 0.1, None)
    assert advice is not None
    assert advice.label == "b"
    assert "not measured" in advice.text


def test_one_that_could_not_be_compared_is_not_recommended() -> None:
    advice = advise([SOURCE, CLOSE, Line("other", (500,))], 0.1, "source")
    assert advice is not None
    assert advice.label == "close"
    assert advice.text.endswith("Not compared, so not recommended: other.")


def test_with_the_source_alone_compared_the_fastest() -> None:
    advice = advise([SOURCE, Line("other", (500,))], 0.1, "source")
    assert advice is not None
    assert (advice.label, advice.rule) == ("other", RULE_WITHOUT_KLD)


def test_nothing_timed_no_advice() -> None:
    assert advise([Line("failed", ())], 0.1, None) is None


def test_the_front() -> None:
    assert front(ROWS) == [SOURCE, CLOSE, FAST]  # slow is slower than close, and further off
    assert front([*ROWS, Line("twin", (93,), 0.02)])[-1].label == "twin"  # equal in both: neither beats the other


def test_without_divergences_the_front_is_of_speed_and_memory() -> None:
    small, large, worse = Line("s", (1,), None, 10), Line("l", (2,), None, 20), Line("w", (1,), None, 15)
    assert front([small, large, worse, Line("unknown", (9,))]) == [small, large]
