"""``tapster imatrix`` as its users run it."""

import json
from pathlib import Path

import pytest

from tapster.converters.imatrix.file import read_imatrix
from tapster.server.cli import main


def imatrix(*arguments: object) -> int:
    return main(["imatrix", *map(str, arguments)])


def test_file_lies_where_asked_and_is_not_replaced(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "mine.txt"
    text.write_text("Hello there, hello here. " * 200)
    out = tmp_path / "tiny.imatrix.gguf"
    options = ("--calibration", text, "--out", out, "--chunk-tokens", 128, "--json")
    assert imatrix(tiny_model, *options) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["path"] == str(out)
    assert facts["chunks"] > 1
    assert len(read_imatrix(out).entries) == facts["weights"]
    assert imatrix(tiny_model, *options) == 2
    assert "--force" in capsys.readouterr().err
    assert imatrix(tiny_model, *options, "--force") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--chunk-tokens", "1"], "--chunk-tokens"),
        (["--calibration", "nowhere.txt"], "nowhere.txt"),
        (["--out", "/nowhere/at/all.gguf"], "/nowhere"),
    ],
)
def test_refusals(tiny_model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert imatrix(tiny_model, *arguments, "--force") == 2
    assert said in capsys.readouterr().err
