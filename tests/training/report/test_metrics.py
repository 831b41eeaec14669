"""What a run measures: the file, what a resumed run keeps of it, and what the terminal shows."""

import io
import json
import math
from pathlib import Path

import pytest

from tapster.training.report.display import Terminal, duration, shown
from tapster.training.report.metrics import Metrics, read_metrics


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def steps(path: Path) -> list[tuple[str, int, str]]:
    return [(record["stage"], record["step"], record["kind"]) for record in read_metrics(path / "metrics.jsonl")]


def run(out: Path, stage: str, first: int, last: int, done: int = 0) -> None:
    with Metrics(out, tensorboard=False) as metrics:
        metrics.begin(stage, 10, done)
        for step in range(first, last + 1):
            metrics.log(step, {"loss": 1 / step, "terms/kl": 0.5})


def test_a_record_is_a_line(tmp_path: Path) -> None:
    with Metrics(tmp_path, tensorboard=False) as metrics:
        metrics.begin("sft", 2)
        metrics.log(0, {"loss": 4.0}, "eval")
        metrics.log(1, {"loss": math.inf, "weights/tea": 0.25})
    first, second = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert (first["stage"], first["step"], first["kind"], first["loss"]) == ("sft", 0, "eval", 4.0)
    assert (second["kind"], second["loss"], second["weights/tea"]) == ("train", None, 0.25)


def test_a_resumed_stage_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, "one", 1, 3)
    run(tmp_path, "two", 1, 6)
    run(tmp_path, "two", 5, 7, done=4)
    assert steps(tmp_path) == [("one", n, "train") for n in (1, 2, 3)] + [("two", n, "train") for n in range(1, 8)]


def test_a_stage_begun_anew_drops_its_own_records_only(tmp_path: Path) -> None:
    run(tmp_path, "one", 1, 3)
    run(tmp_path, "two", 1, 2)
    run(tmp_path, "two", 1, 1)
    assert steps(tmp_path) == [("one", 1, "train"), ("one", 2, "train"), ("one", 3, "train"), ("two", 1, "train")]


def test_a_line_cut_off_by_a_kill_is_healed(tmp_path: Path) -> None:
    run(tmp_path, "one", 1, 3)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert steps(tmp_path) == [("one", 1, "train"), ("one", 2, "train")]
    run(tmp_path, "one", 3, 3, done=2)
    assert steps(tmp_path) == [("one", 1, "train"), ("one", 2, "train"), ("one", 3, "train")]


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        metrics.begin("sft", 3)
        for step in (1, 2, 3):
            metrics.log(step, {"loss": 1.0 / step})
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "sft")).Reload()
    events = board.Scalars("train/loss")
    assert [(event.step, event.value) for event in events] == [(step, pytest.approx(1 / step)) for step in (1, 2, 3)]


def test_where_nobody_watches_each_record_is_a_line() -> None:
    stream = io.StringIO()
    terminal = Terminal(stream)
    terminal.begin("sft", 4)
    terminal.log(2, {"loss": 1.25, "terms/cwce": 1.0, "terms/tea": 0.25, "learning_rate": 2e-5}, "train")
    terminal.log(4, {"loss": 1.125}, "eval")
    terminal.end()
    first, second = stream.getvalue().splitlines()
    assert first.startswith("sft 2/4  loss 1.25  cwce 1  tea 0.25  lr 2.0e-05  ")
    assert first.endswith(" left")
    assert second == "sft 4/4 held out  loss 1.125"


def test_a_terminal_has_a_bar_and_lines_above_it() -> None:
    screen = Screen()
    terminal = Terminal(screen)
    terminal.begin("sft", 4)
    terminal.step(1)
    terminal.log(1, {"loss": 1.25}, "train")
    terminal.say("a note [not markup]")
    terminal.log(4, {"loss": 1.125}, "eval")
    terminal.end()
    shown_text = screen.getvalue()
    assert "a note [not markup]" in shown_text
    assert "sft 4/4 held out  loss 1.125" in shown_text
    assert "loss 1.2500" in shown_text
    terminal.say("after")
    assert screen.getvalue().endswith("after\n")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (3.14159, "3.142"), (1.234e-5, "1.2e-05"), (12345.6, "12,346"), (-0.5, "-0.5")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (180, "3 min"), (9000, "2.5 h"), (86400 * 12, "12 days"), (3.2e8, "3,704 days")]
)
def test_durations_have_one_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
