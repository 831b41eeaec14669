"""Several processes, and micro-batches of any size, make the same steps as one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import loop_runs
import pytest
from loop_runs import losses, questions, recipe, run
from safetensors.torch import load_file

STILL = loop_runs.SCRATCH | {"attention_dropout": 0.0}
TERMS = [{"term": "mixce", "weight": [[0, 0.5], [2, 1.0]]}, {"term": "cross_entropy", "per": "sequence"}]


def stages(data: Path, size: int) -> list[dict]:
    """The second one packed."""
    packed = {"train": [str(data)], "packing": True}
    whole = {"micro_batch_size": size, "objective": TERMS}
    return [whole | {"steps": 4}, whole | {"name": "packed", "steps": 2, "data": packed, "objective": TERMS[:1]}]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return questions(tmp_path_factory.mktemp("data") / "sums.jsonl")


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    run(recipe(data, *stages(data, 8), scratch=STILL), out)
    return out


def assert_close(out: Path, alone: Path) -> None:
    for kind in ("train", "eval"):
        for step, values in losses(alone, kind).items():
            assert losses(out, kind)[step] == pytest.approx(values, rel=2e-4, abs=2e-5), step
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (out, alone))
    for name, tensor in theirs.items():
        assert float((tensor - ours[name]).float().abs().max()) < 2e-3, name


@pytest.mark.parametrize("size", [1, 2])
def test_micro_batches_change_nothing(size: int, data: Path, alone: Path, tmp_path: Path) -> None:
    run(recipe(data, *stages(data, size), scratch=STILL), tmp_path / "run")
    assert_close(tmp_path / "run", alone)


def test_two_processes_are_as_one(data: Path, alone: Path, tmp_path: Path) -> None:
    spelled, out = tmp_path / "recipe.json", tmp_path / "run"
    spelled.write_text(recipe(data, *stages(data, 2), scratch=STILL).model_dump_json(), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    shared |= {"ACCELERATE_USE_CPU": "true"}
    processes = [
        subprocess.Popen(
            [sys.executable, loop_runs.__file__, str(spelled), str(out)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=180)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0], said
    assert_close(out, alone)
