"""What is about a file becomes one line, whoever says it; everything else stays what it is."""

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from full_disk import full_disk
from safetensors.torch import save_file

from tapster.runtime.errors import ConfigError, TrainingError
from tapster.training.disk import or_a_clear_end_of_files

BIG = torch.zeros(10_000)


def write(folder: Path, writer: str) -> None:
    match writer:
        case "python":
            (folder / "x").write_bytes(bytes(40_000))
        case "torch":
            torch.save(BIG, folder / "x")
        case "safetensors":
            save_file({"x": BIG}, folder / "x")
        case "shutil":
            shutil.copytree(folder / "source", folder / "target")


@pytest.mark.parametrize("writer", ["python", "torch", "safetensors", "shutil"])
def test_every_writer_s_full_disk_is_one_line(writer: str, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "x").write_bytes(bytes(40_000))
    with (
        pytest.raises(
            TrainingError, match=r"^cannot write it: .+; make room and run the same command again$"
        ) as caught,
        full_disk(1_000),
        or_a_clear_end_of_files("write it"),
    ):
        write(tmp_path, writer)
    assert "\n" not in str(caught.value)
    if writer != "torch":  # which counts bytes and asks nobody why
        assert "File too large" in str(caught.value)


def test_wherever_torch_runs_out_of_room_it_is_one_line(tmp_path: Path) -> None:
    """It says something else when the last bytes do not fit, or those of its index."""
    said = set()
    for largest in range(0, 42_000, 107):
        with full_disk(largest), suppress(TrainingError), or_a_clear_end_of_files("write it"):
            try:
                torch.save(BIG, tmp_path / "x")
            except Exception as error:
                said.add(" ".join(str(error).split()))
                raise
    assert len(said) > 1


def test_a_file_that_is_not_there_is_named() -> None:
    with (
        pytest.raises(TrainingError, match=r"^cannot go on: No such file or directory: /absent; mend that and look$"),
        or_a_clear_end_of_files("go on", "look"),
    ):
        Path("/absent").read_text()


def test_an_error_without_words_has_its_name() -> None:
    with pytest.raises(TrainingError, match=r"^cannot go on: TimeoutError; mend"), or_a_clear_end_of_files("go on"):
        raise TimeoutError


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes differ"), BrokenPipeError(32, "Broken pipe"), ConfigError("I/O error"), KeyError("x")],
)
def test_what_is_about_something_else_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, or_a_clear_end_of_files("go on"):
        raise error
    assert caught.value is error
