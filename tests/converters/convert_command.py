"""``tapster convert`` as a test calls it."""

import sys
from pathlib import Path

import pytest

from tapster.server.cli import main

TAPSTER = [sys.executable, "-m", "tapster.server.cli"]


def convert(*arguments: object) -> int:
    return main(["convert", *map(str, arguments)])


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a refused command says."""
    assert convert(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tapster: ")]
    assert len(lines) == 1
    return lines[0]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
