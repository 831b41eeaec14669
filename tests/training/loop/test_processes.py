"""Several processes, and micro-batches of any size, make the same steps as one."""

import os
import signal
from pathlib import Path

import pytest
from loop_runs import STILL, children, losses, recipe, run, wait_for_step
from safetensors.torch import load_file

from tapster.runtime.errors import ConfigError
from tapster.training.loop.checkpoints import COMPLETE
from tapster.training.loop.together import begin_together
from tapster.training.recipe.schema import Recipe

TERMS = [
    {"term": "mixce", "weight": [[0, 0.5], [2, 1.0]]},
    {"term": "cross_entropy", "per": "sequence"},
    {"term": "forward_kl", "weight": 0.5},
    {"term": "hidden_cosine", "weight": 0.1},
    {"term": "tea"},
]


def two_stages(data: Path, teacher: Path, size: int) -> Recipe:
    """With a teacher in memory; the second one packed. Of three held-out rows, or one packed one, two processes have
    not as many each; of labels neither, as rows are dealt by their lengths."""
    rows = {"train": [str(data)], "eval_rows": 3}
    whole = {"micro_batch_size": size, "save_steps": 2}
    return recipe(
        data,
        whole | {"steps": 4, "data": rows, "objective": TERMS},
        whole | {"name": "packed", "steps": 2, "data": rows | {"packing": True}, "objective": TERMS[2:]},
        teacher={"kind": "online", "model": str(teacher)},
        scratch=STILL,
    )


@pytest.fixture(scope="module")
def alone(data: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    run(two_stages(data, teacher, 8), out)
    return out


def assert_close(out: Path, alone: Path) -> None:
    for kind in ("train", "eval"):
        assert losses(out, kind).keys() == losses(alone, kind).keys()
        for step, values in losses(alone, kind).items():
            assert losses(out, kind)[step] == pytest.approx(values, rel=2e-4, abs=2e-5), step
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (out, alone))
    for name, tensor in theirs.items():
        assert float((tensor - ours[name]).float().abs().max()) < 2e-3, name


def test_micro_batches_change_nothing(data: Path, teacher: Path, alone: Path, tmp_path: Path) -> None:
    run(two_stages(data, teacher, 2), tmp_path / "run")
    assert_close(tmp_path / "run", alone)


@pytest.mark.parametrize("spread", [False, True], ids=["ddp", "fsdp"])
def test_two_processes_are_as_one(spread: bool, data: Path, teacher: Path, alone: Path, tmp_path: Path) -> None:
    """Each step is two micro-batches of each process. Ctrl-C that reaches one of them stops both, with a checkpoint,
    and two others go on."""
    out, steps = tmp_path / "run", two_stages(data, teacher, 2)
    hooks = {"spread_weights": True} if spread else {}
    with children(tmp_path, steps, out, processes=2, **hooks) as started:
        wait_for_step(out, "sft", 1)
        pid = started.processes[1].pid
        assert pid is not None
        os.kill(pid, signal.SIGINT)
        assert started.wait() == [130, 130], started.said
        assert started.said.count("a checkpoint is saved, and the same command goes on") == 1
    assert list(out.rglob(COMPLETE))
    assert bool(list(out.rglob("optimizer_0"))) == spread, "each process keeps its part of the optimiser's state"
    with children(tmp_path, steps, out, "--quiet", processes=2, **hooks) as going_on:
        assert going_on.wait() == [0, 0], going_on.said
    assert_close(out, alone)


def test_an_error_in_one_process_is_a_line_of_each(data: Path, tmp_path: Path) -> None:
    short = recipe(data, {"sequence_length": 8})
    with children(tmp_path, short, tmp_path / "run", "--quiet", processes=2) as started:
        codes = started.wait()
    assert 0 not in codes
    lines = [line for line in started.said.splitlines() if line.startswith("tapster: ")]
    assert "tapster: another process of this run has ended: what it said is why" in lines
    assert any("nothing to learn is left of them in 8 tokens" in line for line in lines)
    assert "Traceback" not in started.said


def test_the_first_fsdp_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(ConfigError, match="set fsdp_version to 2 in accelerate's configuration"):
        begin_together()
