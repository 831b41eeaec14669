"""``tapster train``: what it shows, what it refuses, and where it keeps converted checkpoints."""

import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tapster.runtime.errors import ConfigError
from tapster.server.cli import main
from tapster.server.commands.checkpoints import checkpoint_folder
from tapster.server.commands.recipe_options import EXAMPLES
from tapster.training.loop.state import make_out
from tapster.training.recipe.read import read_recipe


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["train", *arguments]) == 0
    return capsys.readouterr().out


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["train", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    return line


def test_the_recipes_are_described(capsys: pytest.CaptureFixture[str]) -> None:
    text = answer(capsys, "--list")
    for name in ("afm-kda", "dante", "kai", "kodalite", "memphis"):
        assert f"\n{name}: " in f"\n{text}"
    assert "stages: pretrain -> chat" in text
    listed = json.loads(answer(capsys, "--list", "--json"))
    assert [one["name"] for one in listed] == ["afm-kda", "dante", "kai", "kodalite", "memphis"]


def test_show_prints_what_holds(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("dante", "--small", "--set", "stages.distil.optimizer.lr=1e-4", "--data", "distil=mine.jsonl")
    shown = tomllib.loads(answer(capsys, *arguments, "--show"))
    [stage] = shown["stages"]
    assert (stage["optimizer"]["lr"], stage["data"]["train"]) == (1e-4, ["mine.jsonl"])
    assert json.loads(answer(capsys, *arguments, "--show", "--json")) == shown


def test_a_teacher_s_address_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    shown = tomllib.loads(answer(capsys, "dante", "--small", "--teacher", "http://127.0.0.1:1/v1", "--show"))
    assert shown["teacher"]["endpoint"] == "http://127.0.0.1:1/v1"
    assert "the recipe memphis has no teacher" in refusal(capsys, "memphis", "--teacher", "http://127.0.0.1:1/v1")
    assert "give a base URL" in refusal(capsys, "dante", "--teacher", "127.0.0.1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give a RECIPE"),
        (("dnate",), "did you mean dante?"),
        (("dante", "--set", "steps"), "--set steps: write KEY=VALUE"),
        (("dante", "--set", "a..b=1"), "write KEY=VALUE"),
        (("dante", "--set", "stages.distil.stepps=1"), "did you mean steps?"),
        (("dante", "--data", "distill=x"), "there is no stage distill; did you mean distil?"),
        (("dante", "--set", "convert=['gguf:Q4KM']"), "dante: convert: no GGUF type is called 'Q4KM'"),
        (("dante", "--set", "convert=['hf']"), "the result of training is a Hugging Face folder already"),
        (("dante", "--teacher", ""), "--teacher is empty"),
        (("dante", "--price", "much"), "--price 'much' is not IN,OUT"),
        (("kai", "--price", "1,2"), "the teacher of kai is in memory"),
        (("kai", "--small", "--data", "none.jsonl"), "there is no file or folder none.jsonl"),
        (("kai", "--small", "--data", "none.jsonl", "--dry-run"), "there is no file or folder none.jsonl"),
        (("kodalite", "--small", "--set", "student.scratch.hiden_size=5", "--dry-run"), "did you mean hidden_size"),
        (("kodalite", "--small", "--set", "student.chat_template='{% for'", "--show"), "is no valid Jinja"),
        (("kodalite", "--small", "--set", "student.tokenizer=nosuch", "--dry-run"), "nosuch"),
        (("kodalite", "--small", "--set", "stages.chat.lora.targets=['nope']", "--dry-run"), "nothing to be trained"),
        (("kai", "--small", "--data", "sample:chta", "--show"), "did you mean sample:chat?"),
        (("kai", "--small", "--out", "/proc/run"), "cannot make the folder /proc/run"),
        (("kai", "--small", "--out", __file__), "is a file; --out is a folder"),
        ((str(Path(__file__).parent),), "the folder has no recipe.toml"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    line = refusal(capsys, *arguments)
    assert line.startswith("tapster: ")
    assert said in line


def test_a_dry_run_estimates_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stage = read_recipe("kodalite", small=True).stages[0]
    text = answer(capsys, "kodalite", "--small", "--dry-run")
    assert f"pretrain: {stage.steps} steps, at most" in text
    found = json.loads(answer(capsys, "kodalite", "--small", "--dry-run", "--json"))
    assert stage.steps
    assert found["stages"][0]["tokens"] == stage.steps * stage.batch_size * stage.sequence_length
    assert found["flop_s"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("form", [(), ("--small",)])
def test_the_changes_that_the_help_shows_are_possible(
    capsys: pytest.CaptureFixture[str], example: str, form: tuple[str, ...]
) -> None:
    assert tomllib.loads(answer(capsys, "dante", *form, "--set", example, "--show"))["name"] == "dante"


def test_a_recipe_is_read_without_torch() -> None:
    code = (
        "import sys; from tapster.server.cli import main\n"
        "assert main(['train', 'dante', '--show']) == 0\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "sys.stderr.write(f'loaded: {sorted(heavy)}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "loaded: []"


def test_a_folder_that_cannot_be_made() -> None:
    with pytest.raises(ConfigError, match="cannot make the folder /dev/null/run: Not a directory; give another --out"):
        make_out(Path("/dev/null/run"))


def test_what_is_not_installed_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str, *_: str) -> None:
        """Nothing is installed."""

    monkeypatch.setattr(importlib.util, "find_spec", find)
    assert "training needs torch and transformers and " in (line := refusal(capsys, "dante", "--small"))
    assert line.endswith(": pip install 'tapster[train]'")


def test_a_folder_is_its_own_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert checkpoint_folder(str(tmp_path)) == tmp_path


def test_a_gguf_file_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = checkpoint_folder("demo", quiet=True)
    assert first.parent == tmp_path / "tapster" / "checkpoints"
    assert json.loads((first / "config.json").read_text())["model_type"] == "llama"
    made = (first / "model.safetensors").stat().st_mtime_ns
    assert checkpoint_folder("demo", quiet=True) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == made
