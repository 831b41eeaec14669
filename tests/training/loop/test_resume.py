"""A run that is out of room, finished, changed or wrong: nothing is lost, and one line says what to do."""

import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
from full_disk import full_disk
from loop_runs import Ear, losses, recipe, run
from safetensors.torch import load_file
from transformers import AutoTokenizer

from tapster.runtime.errors import ConfigError, TrainingError
from tapster.training.loop import checkpoints, trainer
from tapster.training.recipe.schema import Recipe


def noisy(data: Path) -> Recipe:
    return recipe(data, {"neftune": {"alpha": 5.0}, "eval_steps": 5})


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    run(noisy(data), out)
    return out


def test_the_run_learns(whole: Path) -> None:
    values = losses(whole, "eval")
    assert values["sft", 8]["terms/cross_entropy"] < values["sft", 0]["terms/cross_entropy"] - 0.02


def test_a_full_disk_is_one_clear_line_and_loses_nothing(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, out = checkpoints.save_trained, tmp_path / "run"

    def full(module: object, checkpoint: Path, state: object = None) -> None:
        with full_disk(10_000) if checkpoint.name == "checkpoint-6" else nullcontext():
            real(module, checkpoint, state)  # type: ignore[arg-type]  handed through

    monkeypatch.setattr(trainer, "save_trained", full)
    with pytest.raises(TrainingError, match=r"cannot write .*checkpoint-6: .*File too large.*; make room") as caught:
        run(noisy(data), out)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (out / "stages" / "01-sft").iterdir()] == ["checkpoint-3"]
    monkeypatch.undo()
    run(noisy(data), out)
    assert losses(out) == losses(whole)
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (out, whole))
    assert all(tensor.equal(ours[name]) for name, tensor in theirs.items())


@pytest.fixture(scope="module")
def stopped(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended behind its first checkpoint."""
    out = tmp_path_factory.mktemp("stopped") / "run"

    def failed(self: object, **_: object) -> None:
        raise TrainingError("no further")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trainer.DistillTrainer, "evaluate", failed)
        with pytest.raises(TrainingError, match="no further"):
            run(recipe(data, {"eval_steps": 4, "data": {"train": [str(data)], "eval_rows": 0}}), out)
    return out


@pytest.mark.parametrize(
    "name", [checkpoints.WEIGHTS, checkpoints.OBJECTIVES, "trainer_state.json", "optimizer.pt", "rng_state.pth"]
)
def test_a_damaged_checkpoint_is_one_clear_line(name: str, data: Path, stopped: Path, tmp_path: Path) -> None:
    out = shutil.copytree(stopped, tmp_path / "run")
    file = out / "stages" / "01-sft" / "checkpoint-3" / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    wanted = recipe(data, {"data": {"train": [str(data)], "eval_rows": 0}})
    with pytest.raises(
        TrainingError, match=r"checkpoint-3 cannot be read \(.+\): if it is damaged, remove it"
    ) as caught:
        run(wanted, out)
    assert "\n" not in str(caught.value)
    shutil.rmtree(file.parent)
    run(wanted, out)
    assert len(losses(out)) == 8


def test_a_folder_that_was_full_at_once_is_a_run_s(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"File too large.*; make room"), full_disk(0):
        run(recipe(data), out)
    assert list(out.glob("*.new"))
    run(recipe(data, {"steps": 1, "objective": [{"term": "cross_entropy"}]}), out)
    assert not list(out.glob("*.new"))


def test_a_file_that_cannot_be_written_is_one_clear_line(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "recipe.toml").mkdir(parents=True)
    with pytest.raises(TrainingError, match=r"cannot go on with .*: Is a directory: .*recipe.toml; mend that and run"):
        run(recipe(data), out)


def test_what_failed_before_a_checkpoint_may_be_tried_with_other_settings(data: Path, tmp_path: Path) -> None:
    out, wild = tmp_path / "run", {"optimizer": {"lr": 1e30}, "learning_rate": {"shape": "constant"}}
    with pytest.raises(ConfigError, match="in 8 tokens"):
        run(recipe(data, {"sequence_length": 8}), out)
    with pytest.raises(TrainingError, match="a lower learning rate"):
        run(recipe(data, wild | {"save_steps": None}), out)
    run(recipe(data, {"steps": 1, "objective": [{"term": "cross_entropy"}]}, tokenizer="train:300"), out)
    assert len(AutoTokenizer.from_pretrained(out / "model")) == 300, "a student of the new settings"
    with pytest.raises(ConfigError, match="was done with other settings"):
        run(recipe(data), out)


def test_a_finished_run_is_left_alone_and_a_changed_recipe_is_refused(data: Path, whole: Path) -> None:
    ear, weights = Ear(), whole / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    result = run(noisy(data), whole, display=ear)
    assert ear.heard == ["sft: done before"]
    assert result.stages["01-sft"]["steps"] == 8
    assert weights.stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="stage 01-sft was done with other settings than the recipe has now"):
        run(recipe(data, {"neftune": {"alpha": 5.0}, "seed": 1}), whole)
    run(recipe(data, {"neftune": {"alpha": 5.0}, "logging_steps": 5}), whole)  # what changes no weight is no change


def test_a_folder_of_something_else_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"is not of a training run \(it holds precious.txt\)"):
        run(recipe(data), tmp_path, force=True)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_loss_that_is_no_number_ends_the_run(data: Path, tmp_path: Path) -> None:
    stage = {"optimizer": {"lr": 1e30}, "learning_rate": {"shape": "constant"}}
    with pytest.raises(TrainingError, match=r"step \d+: the loss is (nan|inf): .*mixce") as caught:
        run(recipe(data, stage), tmp_path / "run")
    assert "\n" not in str(caught.value)
