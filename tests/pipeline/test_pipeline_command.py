"""``tapster pipeline``: what it says, what it refuses, that it serves in the end, and what Ctrl-C leaves."""

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tapster.server.cli import main

COMMAND = [sys.executable, "-m", "tapster.server.cli", "pipeline"]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["pipeline", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give a RECIPE"),
        (("dnate",), "did you mean dante?"),
        (("tiny.toml", "--to", "Q4_K_M"), "did you mean gguf:Q4_K_M?"),
        (("tiny.toml", "--to", "hf"), "--to: the result of training is a Hugging Face folder already"),
        (("tiny.toml", "--set", "convert=['gguf:Q4KM']"), "tiny.toml: convert: no GGUF type is called 'Q4KM'"),
        (("tiny.toml", "--serve", "gguf:Q8_O"), "did you mean gguf:Q8_0?"),
        (("tiny.toml", "--port", "65536"), "--port 65536: a port is a number from 0 to 65535"),
        (("tiny.toml", "--no-serve", "--port", "1"), "--port has no effect with --no-serve"),
        (("tiny.toml", "--teacher", "http://127.0.0.1:1/v1"), "the recipe tiny.toml has no teacher"),
        (("tiny.toml", "--price", "1,2"), "--price 1,2: the recipe tiny.toml has no teacher"),
        (("tiny.toml", "--out", "tiny.toml"), "tiny.toml is a file; --out is a folder"),
    ],
)
@pytest.mark.usefixtures("place")
def test_what_makes_no_sense_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    line = refusal(capsys, *arguments)
    assert line.startswith("tapster: ")
    assert said in line


@pytest.mark.usefixtures("place")
def test_several_processes_train_and_one_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "a pipeline is one process" in refusal(capsys, "tiny.toml")


def test_a_dry_run_tells_the_plan_and_writes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    assert main(["pipeline", "run", "--set", "stages.second.steps=3", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tiny in run"
    assert lines[2] == "  train    will run    run/model: stages.second.steps is 3, was 2"
    assert any(line.startswith("    second: 3 steps, at most") for line in lines)
    assert main(["pipeline", "tiny.toml", "--out", "new", "--dry-run", "--json", "--no-serve"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [step["status"] for step in found["steps"]] == ["not needed", *["will run"] * 3, "not needed"]
    assert found["estimate"]["stages"][0]["steps"] == 2
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


def test_what_is_up_to_date_is_told_without_torch(place: Path) -> None:
    code = (
        "import sys; from tapster.server.cli import main\n"
        "assert main(['pipeline', 'run', '--no-serve', '--json']) == 0\n"
        'sys.stderr.write(f\'loaded: {sorted({"torch", "transformers", "datasets"} & set(sys.modules))}\')'
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=True)
    assert done.stderr.endswith("loaded: []")
    found = json.loads(done.stdout)
    assert [step["status"] for step in found["steps"]] == ["not needed", *["up to date"] * 3]
    [artifact] = found["artifacts"]
    assert artifact["target"] == "gguf:Q8_0"
    assert artifact["bytes"] == (place / artifact["path"]).stat().st_size
    assert artifact["mean_kld"] < 0.01
    assert found["serve"] == ["tapster", "serve", "run/artifacts/run-Q8_0.gguf"]


def test_it_serves_in_the_end(place: Path) -> None:
    arguments = [*COMMAND, "run", "--port", "0", "--no-page"]
    with subprocess.Popen(arguments, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stderr
        address = next(line for line in child.stderr if " answers on " in line).split(" answers on ")[1].split()[0]
        with urllib.request.urlopen(f"{address}/models") as answer:
            assert json.loads(answer.read())["data"][0]["id"] == "run-Q8_0"
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=30) == 0
        said = child.stdout.read()
    assert "  convert         -  up to date: gguf:Q8_0" in said
    assert said.splitlines()[-1] == "  tapster serve run/artifacts/run-Q8_0.gguf --port 0 --no-page"


def test_ctrl_c_says_how_to_go_on(place: Path) -> None:
    changed = ["--set", "stages.first.steps=500", "--no-serve"]
    with subprocess.Popen([*COMMAND, "run", *changed], cwd=place, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr
        said: list[str] = []
        for line in child.stderr:
            said.append(line)
            if line.startswith("first 3/500"):
                child.send_signal(signal.SIGINT)
        assert child.wait(timeout=60) == 130, "".join(said)
    assert "train: stopped; tapster pipeline run goes on\n" in said
    assert list((place / "run").glob("stages/01-first/checkpoint-*"))
    assert not (place / "run/model").exists()
