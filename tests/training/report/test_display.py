"""What is said of a run while it runs, and to nobody."""

import os

import pytest

from tapster.training.report.display import Terminal


def test_training_goes_on_when_nobody_reads_any_more() -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    display = Terminal(stream)
    display.say("begins")
    os.close(reading)
    display.say("is not read")
    display.begin("stage", 2)
    display.log(1, {"loss": 1.0}, "train")
    display.end()
    with pytest.raises(BrokenPipeError):  # what was not read is written again
        stream.close()


def test_a_terminal_that_closes_ends_nothing() -> None:
    ours, theirs = os.openpty()
    stream = os.fdopen(theirs, "w")
    display = Terminal(stream)
    display.begin("stage", 2)
    os.close(ours)
    display.step(1)
    display.say("is not seen")
    display.log(1, {"loss": 1.0}, "eval")
    display.end()
    with pytest.raises(OSError, match="Input/output error"):
        stream.close()
