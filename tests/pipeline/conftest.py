"""A recipe of two stages that takes seconds, and pipelines that run it in this process."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tapster.converters.targets import parse_targets
from tapster.server.pipeline.record import Record
from tapster.server.pipeline.run import Pipeline
from tapster.server.pipeline.step import Job
from tapster.training.recipe.read import read_recipe
from tapster.training.report.display import Silent

RECIPE = """
name = "tiny"
title = "A tiny one"
convert = ["gguf:Q8_0"]

[student]
tokenizer = "train:280"
chat_template = "chatml"
compute = "float32"

[student.scratch]
model_type = "llama"
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 16
max_position_embeddings = 128

[[stages]]
name = "first"
steps = 2
batch_size = 4
sequence_length = 64
logging_steps = 1
data = { train = ["sums.jsonl"], eval_rows = 4 }

[[stages.objective]]
term = "cross_entropy"

[[stages]]
name = "second"
steps = 2
batch_size = 4
sequence_length = 64
logging_steps = 1
data = { train = ["more.jsonl"], eval_rows = 4 }

[[stages.objective]]
term = "cross_entropy"
"""


class Ear(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


MakePipeline = Callable[..., Pipeline]


def sums(path: Path, start: int = 0) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {n} plus {n}?"},
                {"role": "assistant", "content": f"{n} plus {n} is {n + n}."},
            ]
        }
        for n in range(start, start + 40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make(folder: Path, *changes: tuple[str, str], to: tuple[str, ...] = (), again: tuple[str, ...] = ()) -> Pipeline:
    """A pipeline of the recipe in ``folder``, whose run is in ``folder``/run."""
    recipe = read_recipe(str(folder / "tiny.toml"), overrides=changes)
    recipe = recipe.model_copy(update={"convert": list(to)}) if to else recipe
    out = Path("run")
    job = Job(recipe, out, parse_targets(recipe.convert), Path, Ear(), Record(out), quiet=True, again=frozenset(again))
    return Pipeline(job)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pipeline that has run."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    sums(folder / "sums.jsonl")
    sums(folder / "more.jsonl", 50)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make(folder).run()
    return folder


@pytest.fixture
def place(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to change, and the current folder."""
    shutil.copytree(finished, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def pipeline(place: Path) -> MakePipeline:
    """Makes a pipeline over the copy."""
    return lambda *changes, **options: make(place, *changes, **options)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePipeline:
    """Makes a pipeline where nothing has run yet."""
    (tmp_path / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    sums(tmp_path / "sums.jsonl")
    sums(tmp_path / "more.jsonl", 50)
    monkeypatch.chdir(tmp_path)
    return lambda *changes, **options: make(tmp_path, *changes, **options)
