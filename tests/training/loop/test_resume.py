"""A run that is killed, interrupted or out of room goes on as if nothing had happened."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from loop_runs import losses, questions, recipe, run
from safetensors.torch import load_file

from tapster.runtime.errors import ConfigError, TrainingError
from tapster.training.loop.checkpoints import COMPLETE
from tapster.training.report.display import Silent


class At(Silent):
    """Does something once a step is done."""

    def __init__(self, step: int, what: Callable[[], None]) -> None:
        self._step, self._what = step, what

    def step(self, step: int) -> None:
        if step == self._step:
            self._what()


class Killed(BaseException):
    pass


def die() -> None:
    raise Killed


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return questions(tmp_path_factory.mktemp("data") / "sums.jsonl")


def noisy(data: Path) -> dict:
    """A stage with everything that has a state: noise, dropout, an order, an optimiser of ours."""
    return {
        "neftune": {"alpha": 5.0},
        "optimizer": {"name": "adalite", "lr": 1e-3},
        "data": {
            "train": [str(data)],
            "eval_rows": 4,
            "curriculum": {"order": "buckets", "by": "length", "buckets": 3},
        },
        "gradient_share_steps": 4,
        "eval_steps": 5,
    }


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    run(recipe(data, noisy(data)), out)
    return out


def assert_same(out: Path, whole: Path) -> None:
    for kind in ("train", "eval"):
        found, expected = losses(out, kind), losses(whole, kind)
        assert found.keys() == expected.keys()
        for step, values in expected.items():
            assert found[step] == pytest.approx(values, abs=1e-6), step
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (out, whole))
    for name, tensor in theirs.items():
        assert tensor.equal(ours[name]), name


@pytest.mark.parametrize("step", [2, 5, 9])
def test_a_killed_run_goes_on_exactly(step: int, data: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Killed):
        run(recipe(data, noisy(data)), out, display=At(step, die))
    run(recipe(data, noisy(data)), out)
    assert_same(out, whole)


def test_the_run_learns(whole: Path) -> None:
    values = losses(whole, "eval")
    assert values["sft", 10]["terms/cross_entropy"] < values["sft", 0]["terms/cross_entropy"] - 0.02
    shares = [value for key, value in losses(whole)["sft", 5].items() if key.startswith("gradient_share/")]
    assert sum(shares) == pytest.approx(1.0, abs=1e-5)


def test_ctrl_c_saves_the_step_that_was_running(data: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(recipe(data, noisy(data)), out, display=At(4, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert (out / "stages" / "01-sft" / "checkpoint-5" / COMPLETE).is_file()
    run(recipe(data, noisy(data)), out)
    assert_same(out, whole)


def test_half_a_checkpoint_does_not_count(data: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Killed):
        run(recipe(data, noisy(data)), out, display=At(7, die))
    stage = out / "stages" / "01-sft"
    half = stage / "checkpoint-7"
    half.mkdir()
    (half / "trained.safetensors").write_bytes(b"\0" * 100)
    run(recipe(data, noisy(data)), out)
    assert_same(out, whole)


def test_a_full_disk_is_one_clear_line_and_loses_nothing(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tapster.training.loop import checkpoints, trainer

    real, out = checkpoints.save_trained, tmp_path / "run"

    def full(module: object, checkpoint: Path, state: object = None) -> None:
        if checkpoint.name == "checkpoint-6":
            raise OSError(28, "No space left on device")
        real(module, checkpoint, state)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer, "save_trained", full)
    with pytest.raises(
        TrainingError, match=r"cannot write .*checkpoint-6: No space left on device; make room"
    ) as caught:
        run(recipe(data, noisy(data)), out)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (out / "stages" / "01-sft").iterdir()] == ["checkpoint-3"]
    monkeypatch.undo()
    run(recipe(data, noisy(data)), out)
    assert_same(out, whole)


def test_a_finished_run_is_left_alone_and_a_changed_recipe_is_refused(data: Path, whole: Path) -> None:
    said: list[str] = []

    class Ear(Silent):
        def say(self, line: str) -> None:
            said.append(line)

    before = (whole / "model" / "model.safetensors").stat().st_mtime_ns
    result = run(recipe(data, noisy(data)), whole, display=Ear())
    assert said == ["sft: done before"]
    assert result.stages["01-sft"]["steps"] == 10
    assert (whole / "model" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="stage 01-sft was done with other settings than the recipe has now"):
        run(recipe(data, noisy(data) | {"seed": 1}), whole)
    run(recipe(data, noisy(data) | {"logging_steps": 5}), whole)  # what changes no weight is no change


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
