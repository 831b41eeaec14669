"""What is done again, and why: only what depends on something that has changed."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tapster.runtime.errors import ConfigError
from tapster.server.pipeline.run import Pipeline

MakePipeline = Callable[..., Pipeline]
ARTIFACT = Path("run/artifacts/run-Q8_0.gguf")
PROOF = Path("run/artifacts/run-Q8_0.proof.json")


def statuses(pipeline: Pipeline) -> dict[str, str]:
    return {name: verdict.status for name, verdict in pipeline.plan().items()}


def why(pipeline: Pipeline, step: str) -> str:
    return "; ".join(pipeline.plan()[step].why)


NOTHING = {"teacher": "not needed", "train": "up to date", "convert": "up to date", "prove": "up to date"}


def test_everything_was_made(place: Path) -> None:
    assert json.loads((place / "run/model/config.json").read_text())["hidden_size"] == 32
    proof = json.loads((place / PROOF).read_text())
    assert proof["passed"]
    assert proof["checks"]["divergence"]["measured"]
    state = json.loads((place / "run/state.json").read_text())["stages"]
    assert [stage["done"] for stage in state.values()] == [True, True]


def test_what_is_made_is_not_made_again(place: Path, pipeline: MakePipeline) -> None:
    before = {path: path.stat().st_mtime_ns for path in (place / "run").rglob("*") if path.is_file()}
    again = pipeline()
    assert statuses(again) == NOTHING
    again.run()
    assert {path: path.stat().st_mtime_ns for path in (place / "run").rglob("*") if path.is_file()} == before
    assert [done.seconds for done in again.done] == [None] * 4


def test_dates_do_not_count(place: Path, pipeline: MakePipeline) -> None:
    for path in place.rglob("*"):
        os.utime(path, (1, 1))
    assert statuses(pipeline()) == NOTHING


def test_how_it_is_reported_does_not_count(pipeline: MakePipeline) -> None:
    assert statuses(pipeline(("stages.first.logging_steps", "7"), ("stages.second.save_steps", "1"))) == NOTHING


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("stages.first.steps", "3", "stages.first.steps is 3, was 2"),
        ("stages.second.optimizer.lr", "0.5", "stages.second.optimizer.lr is 0.5, was 2e-05"),
        ("stages.second.objective.cross_entropy.weight", "0.5", "cross_entropy.weight is 0.5, was 1.0"),
        ("student.stop_strings", "['.']", 'student.stop_strings is "[\\".\\"]", was "[]"'),
    ],
)
def test_a_setting_that_has_changed(pipeline: MakePipeline, key: str, value: str, said: str) -> None:
    changed = pipeline((key, value))
    assert statuses(changed) == {**NOTHING, "train": "will run", "convert": "will run", "prove": "will run"}
    assert why(changed, "train") == said or said in why(changed, "train")
    assert why(changed, "convert") == "gguf:Q8_0 unless train makes the same again"


def test_data_that_have_changed(place: Path, pipeline: MakePipeline) -> None:
    with (place / "more.jsonl").open("a") as file:
        file.write("\n")
    assert why(pipeline(), "train") == "more.jsonl has changed"


def test_data_that_are_gone_are_not_missed_while_all_is_done(place: Path, pipeline: MakePipeline) -> None:
    (place / "more.jsonl").unlink()
    assert statuses(pipeline()) == NOTHING


def test_only_the_stages_from_the_changed_one_on_are_trained_again(place: Path, pipeline: MakePipeline) -> None:
    first = (place / "run/stages/01-first/model/model.safetensors").stat().st_mtime_ns
    weights = (place / "run/model/model.safetensors").read_bytes()
    artifact = (place / ARTIFACT).read_bytes()
    pipeline(("stages.second.optimizer.lr", "0.01")).run()
    assert (place / "run/stages/01-first/model/model.safetensors").stat().st_mtime_ns == first
    assert (place / "run/model/model.safetensors").read_bytes() != weights
    assert (place / ARTIFACT).read_bytes() != artifact
    assert statuses(pipeline(("stages.second.optimizer.lr", "0.01"))) == NOTHING
    assert why(pipeline(), "train") == "stages.second.optimizer.lr is 2e-05, was 0.01"


def test_another_target_is_made_beside_the_others(place: Path, pipeline: MakePipeline) -> None:
    before = (place / ARTIFACT).stat().st_mtime_ns
    two = pipeline(to=("gguf:Q8_0", "gguf:F16"))
    assert why(two, "convert") == "not made yet"
    two.run()
    assert (place / ARTIFACT).stat().st_mtime_ns == before
    assert [str(target) for target, _ in two.artifacts()] == ["gguf:Q8_0", "gguf:F16"]
    assert statuses(pipeline(to=("gguf:F16",))) == NOTHING


@pytest.mark.parametrize("gone", [ARTIFACT, PROOF])
def test_an_artifact_without_its_proof_is_none(place: Path, pipeline: MakePipeline, gone: Path) -> None:
    (place / gone).unlink()
    assert why(pipeline(), "convert") == f"{gone} is gone"
    pipeline().run()
    assert statuses(pipeline()) == NOTHING


def test_an_artifact_that_is_not_the_proved_one(place: Path, pipeline: MakePipeline) -> None:
    data = bytearray((place / ARTIFACT).read_bytes())
    data[-1] ^= 1
    (place / ARTIFACT).write_bytes(data)
    assert why(pipeline(), "convert") == f"{ARTIFACT} is not the one that its proof describes"
    proof = json.loads((place / PROOF).read_text())
    (place / PROOF).write_text(json.dumps({**proof, "passed": False}))
    assert why(pipeline(), "convert") == f"{PROOF} says that it failed"
    (place / PROOF).write_text("{")
    assert why(pipeline(), "convert") == f"{PROOF} is damaged"


def test_a_model_that_is_gone_comes_from_the_last_stage(place: Path, pipeline: MakePipeline) -> None:
    weights = (place / "run/model/model.safetensors").read_bytes()
    (place / "run/model/model.safetensors").unlink()
    assert why(pipeline(), "train") == "run/model/model.safetensors is gone"
    stage = (place / "run/stages/02-second/model/model.safetensors").stat().st_mtime_ns
    again = pipeline()
    again.run()
    assert (place / "run/model/model.safetensors").read_bytes() == weights
    assert (place / "run/stages/02-second/model/model.safetensors").stat().st_mtime_ns == stage
    assert [done.verdict.status for done in again.done] == ["not needed", "will run", "up to date", "up to date"]


def test_a_model_that_was_edited_is_converted_again(place: Path, pipeline: MakePipeline) -> None:
    path = place / "run/model/generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "temperature": 0.5}))
    assert why(pipeline(), "convert") == "the model has changed"
    assert statuses(pipeline())["train"] == "up to date"


def test_steps_that_are_asked_for_run(pipeline: MakePipeline) -> None:
    asked = pipeline(again=("convert", "prove", "serve"))
    assert statuses(asked)["train"] == "up to date"
    assert why(asked, "convert") == "it was asked for"


def test_what_tapster_train_has_made_is_taken_over(place: Path, pipeline: MakePipeline) -> None:
    (place / "run/pipeline.json").unlink()
    assert statuses(pipeline()) == {**NOTHING, "convert": "will run", "prove": "will run"}


def test_a_folder_of_another_recipe_or_of_none_is_left_alone(place: Path, pipeline: MakePipeline) -> None:
    with pytest.raises(ConfigError, match="run is of the recipe tiny, and this is other: give another --out"):
        pipeline(("name", "other"))
    (place / "run/state.json").unlink()
    (place / "run/thesis.tex").touch()
    with pytest.raises(ConfigError, match="run is not of a training run"):
        pipeline()


def test_a_damaged_record(place: Path, pipeline: MakePipeline) -> None:
    (place / "run/pipeline.json").write_text("{")
    with pytest.raises(ConfigError, match=r"pipeline\.json is damaged .*: delete it"):
        pipeline()
