"""A `tapster train` that is killed anywhere goes on as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from loop_runs import Children, children, losses, recipe, run, wait_for_step
from safetensors.torch import load_file

from tapster.training.loop.checkpoints import COMPLETE
from tapster.training.recipe.resolved import to_toml
from tapster.training.recipe.schema import Recipe


def everything(data: Path) -> Recipe:
    """Two stages with all that has a state: noise, dropout, orders, both optimisers, a dual side and its teacher, which
    is the student as it was."""
    source = {"train": [str(data)], "eval_rows": 4}
    first = {
        "name": "dual",
        "neftune": {"alpha": 5.0},
        "optimizer": {"name": "adalite", "lr": 1e-3},
        "data": source | {"curriculum": {"order": "buckets", "by": "length", "buckets": 3}},
        "objective": [{"term": "ads", "correct_top_k": 0, "dual_every": 2, "decay": 0.5}, {"term": "cross_entropy"}],
        "gradient_share_steps": 4,
        "eval_steps": 3,
    }
    second = {
        "name": "competent",
        "neftune": {"alpha": 5.0, "variant": "supertrainer"},
        "data": source | {"curriculum": {"order": "competence", "by": "length", "start": 0.3}},
    }
    return recipe(data, first, second, teacher={"kind": "online", "model": "student"})


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    run(everything(data), out)
    return out


def assert_same(out: Path, whole: Path) -> None:
    for kind in ("train", "eval"):
        found, expected = losses(out, kind), losses(whole, kind)
        assert found.keys() == expected.keys()
        for step, values in expected.items():
            assert found[step] == pytest.approx(values, abs=1e-6), step
    for folder in ("stages/01-dual/model", "stages/02-competent/model", "model"):
        ours, theirs = (load_file(one / folder / "model.safetensors") for one in (out, whole))
        for name, tensor in theirs.items():
            assert tensor.equal(ours[name]), name


def test_killed_anywhere_it_goes_on_exactly(data: Path, whole: Path, tmp_path: Path) -> None:
    """At a random step of each stage, and while a checkpoint is written."""
    seed = random.randrange(2**32)
    chosen = random.Random(seed)
    first, second = chosen.randrange(1, 8), chosen.randrange(1, 8)
    print(f"seed {seed}: killed after step {first} of the first stage and {second} of the second")  # noqa: T201  to repeat it
    out, spelled = tmp_path / "run", tmp_path / "recipe.toml"
    spelled.write_text(to_toml(everything(data)), encoding="utf-8")
    command = [sys.executable, "-m", "tapster.server.cli", "train", str(spelled), "--out", str(out), "--quiet"]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        wait_for_step(out, "dual", first)
    finally:
        process.kill()
        assert process.wait() == -signal.SIGKILL
    with children(tmp_path, everything(data), out, kill_in_checkpoint=8) as writing:
        assert writing.wait() == [-signal.SIGKILL], writing.said
    half = next((out / "stages").glob("*/checkpoint-8"))
    assert not (half / COMPLETE).exists()
    with children(tmp_path, everything(data), out) as going_on:
        wait_for_step(out, "competent", second)
        going_on.kill()
    run(everything(data), out)
    assert_same(out, whole)


def test_ctrl_c_saves_the_running_step_and_says_how_to_go_on(data: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for number, (stage, folder) in zip(
        (signal.SIGINT, signal.SIGTERM), (("dual", "01-dual"), ("competent", "02-competent")), strict=True
    ):
        with children(tmp_path, everything(data), out) as running:
            wait_for_step(out, stage, 2)
            interrupt(running, number)
            assert running.wait() == [130], running.said
            assert f"{stage}: stopped after step " in running.said
            assert "a checkpoint is saved, and the same command goes on" in running.said
            assert "Traceback" not in running.said
        assert [path.parent.name for path in (out / "stages" / folder).rglob(COMPLETE)]
    run(everything(data), out)
    assert_same(out, whole)


def interrupt(running: Children, number: int) -> None:
    pid = running.processes[-1].pid
    assert pid is not None
    os.kill(pid, number)
