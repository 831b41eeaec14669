"""What an interruption leaves: everything that was finished, and nothing half."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tapster.converters import ladder
from tapster.server.pipeline.run import Pipeline
from tapster.training.report.display import Silent

MakePipeline = Callable[..., Pipeline]


def test_an_interrupted_conversion_keeps_what_was_finished(
    place: Path, pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize = ladder._Ladder._quantize

    def interrupted(self: Any, output: Any) -> Any:
        if output.target.type == "Q4_0":
            raise KeyboardInterrupt
        return quantize(self, output)

    monkeypatch.setattr(ladder._Ladder, "_quantize", interrupted)
    targets = ("gguf:F16", "gguf:Q4_0")
    first = pipeline(to=targets)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    assert first.job.display.lines[-1] == "convert: stopped; tapster pipeline run goes on"  # type: ignore[attr-defined]  a listener
    names = {path.name for path in (place / "run/artifacts").iterdir()}
    assert "run-F16.gguf" in names
    assert not [name for name in names if name.startswith((".", "run-Q4_0"))]
    monkeypatch.undo()
    monkeypatch.chdir(place)
    again = pipeline(to=targets)
    assert again.plan()["convert"].about == "gguf:Q4_0"
    again.run()
    assert [one.type for _, one in again.artifacts()] == ["F16", "Q4_0"]


def test_interrupted_training_goes_on(fresh: MakePipeline) -> None:
    class Impatient(Silent):
        def begin(self, stage: str, total_steps: int, done: int = 0) -> None:
            self.stage = stage

        def step(self, step: int) -> None:
            if (self.stage, step) == ("second", 2):
                raise KeyboardInterrupt

    only_train, saving = ("convert", "[]"), ("stages.second.save_steps", "1")
    first = fresh(only_train, saving)
    object.__setattr__(first.job, "display", Impatient())
    with pytest.raises(KeyboardInterrupt):
        first.run()
    assert not Path("run/model").exists()
    again = fresh(only_train, saving)
    assert again.plan()["train"].why == ["the stage second was begun"]
    again.run()
    assert "first: done before" in again.job.display.lines  # type: ignore[attr-defined]  a listener
    assert fresh(only_train).plan()["train"].status == "up to date"


def test_other_data_after_an_interruption_begin_the_stage_anew(fresh: MakePipeline) -> None:
    class Impatient(Silent):
        def step(self, step: int) -> None:
            if step == 2:
                raise KeyboardInterrupt

    only_train, saving = ("convert", "[]"), ("stages.first.save_steps", "1")
    first = fresh(only_train, saving)
    object.__setattr__(first.job, "display", Impatient())
    with pytest.raises(KeyboardInterrupt):
        first.run()
    with Path("sums.jsonl").open("a") as file:
        file.write("\n")
    again = fresh(only_train, saving)
    assert again.plan()["train"].why == ["sums.jsonl has changed"]
    again.run()
    assert fresh(only_train).plan()["train"].status == "up to date"
