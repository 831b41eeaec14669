"""Paths of the machine that trained, in a text and in what it was made from."""

from pathlib import Path

import pytest

from tapster.training.report.paths import without_paths


def test_only_the_last_part_of_a_path_is_left(tmp_path: Path) -> None:
    file = tmp_path / "mine" / "train.jsonl"
    file.parent.mkdir()
    file.touch()
    text = f'model = "{tmp_path / "mine"}"\ntrain = ["{file}"]'
    values = {"student": {"model": str(tmp_path / "mine")}, "train": [str(file)]}
    assert without_paths(text, values) == 'model = "mine"\ntrain = ["train.jsonl"]'


def test_a_path_below_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/a.txt").touch()
    assert without_paths("read data/a.txt", ["data/a.txt"]) == "read a.txt"


@pytest.mark.parametrize("value", ["org/name", "hub:org/name:train", "http://127.0.0.1:8000/v1", "x/" * 5000, "\0/"])
def test_what_is_no_path_stays(value: str) -> None:
    assert without_paths(f"from {value}", [value]) == f"from {value}"
