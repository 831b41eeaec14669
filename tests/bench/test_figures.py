"""The arithmetic, against numbers worked out by hand."""

from collections.abc import Sequence

import pytest

from tapster.server.bench.ceiling import Replay
from tapster.server.bench.events import Answer
from tapster.server.bench.figures import Spread, percentile, run_figures, spreads
from tapster.server.bench.scenarios import Run, stall_ratio
from tapster.server.bench.summary import doubts, summarise


def answer(sent_s: float, times_s: Sequence[float], ended_s: float, new_tokens: int | None = None) -> Answer:
    count = len(times_s) if new_tokens is None else new_tokens
    return Answer(sent_s, tuple(times_s), ended_s, "x" * len(times_s), count, 10, True)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, None),
        ([7.0], 0.99, 7.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.5),
        ([10.0, 20.0, 30.0, 40.0, 50.0], 0.9, 46.0),
        ([float(value) for value in range(101)], 0.99, 99.0),
        ([5.0, 1.0], 0.0, 1.0),
        ([5.0, 1.0], 1.0, 5.0),
    ],
)
def test_percentile(values: list[float], share: float, expected: float | None) -> None:
    assert percentile(values, share) == (None if expected is None else pytest.approx(expected))


def test_run_figures_of_two_streams() -> None:
    # stream one: first text after 0.5 s, gaps 1 and 2; stream two: first text after 1.5 s, gaps 3 and 1
    one, two = answer(10.0, (10.5, 11.5, 13.5), 14.0), answer(10.0, (11.5, 14.5, 15.5), 16.0)
    assert run_figures([one, two]) == pytest.approx(
        {
            "wall_s": 6.0,
            "throughput_tps": 1.0,
            "stream_tps": (2 / 3 + 2 / 4) / 2,
            "ttft_p50_ms": 1000.0,
            "ttft_max_ms": 1500.0,
            "gap_p50_ms": 1500.0,
            "gap_p99_ms": 2970.0,
            "gap_max_ms": 3000.0,
        }
    )


def test_an_event_may_carry_several_tokens() -> None:
    assert run_figures([answer(0.0, (1.0, 3.0), 3.0, new_tokens=9)])["stream_tps"] == pytest.approx(4.0)


def test_an_answer_without_text_has_no_ttft_and_no_gaps() -> None:
    figures = run_figures([answer(0.0, (), 2.0)])
    assert figures["wall_s"] == 2.0
    assert [figures[name] for name in ("ttft_p50_ms", "ttft_max_ms", "gap_p50_ms", "stream_tps")] == [None] * 4


def test_text_that_came_at_one_moment_has_no_rate() -> None:
    one_moment = answer(0.0, (1.0, 1.0, 1.0), 1.0)
    assert run_figures([one_moment])["stream_tps"] is None
    assert stall_ratio(one_moment, since_s=0.5) is None


def test_spreads_leave_out_what_a_run_lacks() -> None:
    assert spreads([{"a": 3.0, "b": 1.0}, {"a": 1.0, "b": None}, {"a": 8.0, "b": 1.0}]) == {"a": Spread(3.0, 1.0, 8.0)}


def test_stall_ratio_counts_only_gaps_after_the_long_prompt() -> None:
    # gaps 5, 1, 1, 3, 1: the 5 was over before the prompt came, the median is 1
    stream = answer(0.0, (0.0, 5.0, 6.0, 7.0, 10.0, 11.0), 11.0)
    assert stall_ratio(stream, since_s=6.5) == 3.0
    assert stall_ratio(stream, since_s=4.0) == 5.0
    assert stall_ratio(stream, since_s=11.0) is None


def test_ratios_pair_each_run_with_its_replay() -> None:
    runs = [Run([answer(0.0, (0.5, wall), wall, new_tokens=100)], 100) for wall in (1.0, 3.0, 2.4)]
    replays = [Replay(wall_s, 0.1, [10]) for wall_s in (1.0, 2.0, 2.0)]
    ceiling = summarise("single", runs, replays).ceiling
    assert ceiling is not None
    assert ceiling.wall_ratio == Spread(1.2, 1.0, 1.5)
    assert ceiling.host_ms_per_token.median == pytest.approx(4.0)
    assert ceiling.host_ms_per_token.max == pytest.approx(10.0)


def test_doubts_name_what_differs() -> None:
    short = Run([answer(0.0, (1.0, 2.0), 2.0)], asked_tokens=5)
    assert summarise("single", [short], [Replay(1.0, 0.1, [11])]).ceiling is None
    assert list(doubts("single", [short], [Replay(1.0, 0.1, [11])])) == [
        "single: the server ended answers early: 2 new tokens instead of 5",
        "single: not compared with the raw replay, which had 11 prompt and 5 new tokens; the server had 10 and 2",
    ]
