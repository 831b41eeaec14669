"""A whole run by the command: what it leaves, that it goes on, and what it refuses to go on with."""

import json
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tapster.server.cli import main

TINY = {
    "student.scratch.hidden_size": 32,
    "student.scratch.intermediate_size": 64,
    "student.scratch.num_hidden_layers": 1,
    "student.scratch.num_attention_heads": 2,
    "student.scratch.num_key_value_heads": 1,
    "student.scratch.head_dim": 16,
    "student.tokenizer": "train:300",
    "stages.pretrain.steps": 4,
    "stages.pretrain.batch_size": 2,
    "stages.pretrain.micro_batch_size": 2,
    "stages.pretrain.learning_rate.warmup_steps": 1,
    "stages.pretrain.logging_steps": 1,
    "stages.pretrain.eval_steps": 2,
    "stages.pretrain.save_steps": 2,
    "stages.chat.steps": 2,
    "stages.chat.batch_size": 2,
    "stages.chat.micro_batch_size": 2,
}


def command(out: Path, *more: str, **values: object) -> list[str]:
    changes = {**TINY, **{key.replace("__", "."): value for key, value in values.items()}}
    sets = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    start = "import sys; from tapster.server.cli import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", start, "train", "kodalite", "--small", "--out", str(out), *sets, *more]


def run(out: Path, *more: str, **values: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(out, *more, **values), capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    done = run(out, "--json")
    assert done.returncode == 0, done.stderr
    return out, done


def test_what_a_run_leaves(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, done = finished
    assert json.loads(done.stdout)["model"] == str(out / "model")
    recipe = tomllib.loads((out / "recipe.toml").read_text())
    assert [stage["steps"] for stage in recipe["stages"]] == [4, 2]
    assert json.loads((out / "model" / "config.json").read_text())["hidden_size"] == 32
    card = (out / "model" / "README.md").read_text()
    assert "| pretrain | loss | " in card
    assert "SHA-256" in card
    assert (out / "loss.png").read_bytes()[:4] == b"\x89PNG"
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    trained = [record["step"] for record in records if record["stage"] == "pretrain" and record["kind"] == "train"]
    assert trained == [1, 2, 3, 4]
    assert (out / "tensorboard" / "pretrain").is_dir()


def test_a_run_says_what_it_costs_and_nothing_of_its_libraries(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    lines = finished[1].stderr.splitlines()
    assert "begins" in lines[0]
    assert "pretrain: 4 steps, at most" in lines[2]
    assert not [line for line in lines if "Warning" in line or "it/s" in line]


@pytest.fixture
def here() -> Callable[[list[str]], int]:
    """Runs a command in this process."""
    return lambda arguments: main(arguments[arguments.index("train") :])


def test_a_finished_run_is_not_done_again(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
    here: Callable[[list[str]], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, _ = finished
    before = (out / "metrics.jsonl").read_bytes()
    assert here(command(out)) == 0
    said = capsys.readouterr()
    assert said.err.splitlines()[0] == f"{out}: goes on"
    assert "pretrain: done before" in said.err
    assert said.out == f"{out / 'model'}\n"
    assert (out / "metrics.jsonl").read_bytes() == before


def test_a_changed_recipe_is_no_longer_the_run_s(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
    here: Callable[[list[str]], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert here(command(finished[0], stages__pretrain__optimizer__lr=0.5)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "the stage pretrain was begun with other settings (stages.pretrain.optimizer.lr is 0.5, was " in line
    assert "--force" in line


def interrupted(arguments: list[str], at: str) -> list[str]:
    """What the command said when Ctrl-C came at the line that begins with ``at``."""
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr
        said: list[str] = []
        for line in child.stderr:
            said.append(line)
            if line.startswith(at):
                child.send_signal(signal.SIGINT)
        assert child.wait(timeout=120) == 130, "".join(said)
    return said


def test_ctrl_c_saves_and_the_same_command_goes_on(
    tmp_path: Path, here: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(tmp_path, stages__pretrain__steps=100, stages__pretrain__eval_steps=100)
    said = interrupted(arguments, "pretrain 3/100")
    assert "the same command goes on" in said[-2] + said[-1]
    assert list(tmp_path.glob("stages/*/checkpoint-*"))
    assert here(arguments) == 0
    on = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("pretrain: on after step"))
    assert int(on.split()[4]) >= 3
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [one["step"] for one in records if one["stage"] == "pretrain" and one["kind"] == "train"]
    assert steps == list(range(1, 101))
