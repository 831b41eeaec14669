"""Two folders into one."""

import json
from pathlib import Path

import pytest
import torch
from full_disk import full_disk
from kda_models import tiny_teacher
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tapster.runtime.errors import TrainingError
from tapster.training.merging.interpolate import lerp, slerp
from tapster.training.merging.merge import Method, merge_folders


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two models of one architecture; the second is in several files."""
    for name, scale in (("old", 1.0), ("new", 0.5)):
        model = tiny_teacher()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * scale * 0.1)
        model.save_pretrained(tmp_path / name, max_shard_size="100KB" if name == "new" else "1GB")
    return tmp_path / "old", tmp_path / "new"


@pytest.mark.parametrize("method", ["slerp", "lerp"])
def test_every_tensor_is_between(folders: tuple[Path, Path], tmp_path: Path, method: Method) -> None:
    assert (folders[1] / "model.safetensors.index.json").is_file()
    merge_folders(*folders, tmp_path / "merged", method, 0.25)
    old, new, merged = (AutoModelForCausalLM.from_pretrained(p).state_dict() for p in (*folders, tmp_path / "merged"))
    between = slerp if method == "slerp" else lerp
    assert old.keys() == merged.keys()
    assert all(torch.equal(between(old[name], new[name], 0.25), merged[name]) for name in old)
    assert not list(tmp_path.glob(".*"))


def test_everything_else_is_the_new_models(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[1] / "chat_template.jinja").write_text("{{ messages }}")
    merge_folders(*folders, tmp_path / "merged", "slerp", 0.99)
    for file in folders[1].iterdir():
        if file.suffix != ".safetensors":
            assert (tmp_path / "merged" / file.name).read_bytes() == file.read_bytes()


def test_other_tensors_and_shapes_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    path = folders[0] / "model.safetensors"
    weights = load_file(path)
    save_file({**weights, "more": torch.zeros(1)}, path)
    with pytest.raises(TrainingError, match="new has no tensor more"):
        merge_folders(*folders, tmp_path / "merged", "slerp", 0.5)
    save_file({**weights, "model.norm.weight": torch.zeros(3)}, path)
    with pytest.raises(TrainingError, match=r"model.norm.weight has the shapes \[3\] and \[64\]"):
        merge_folders(*folders, tmp_path / "merged", "slerp", 0.5)
    assert not (tmp_path / "merged").exists()


def test_no_number_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    path = folders[0] / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"][5] = float("nan")
    save_file(weights, path)
    with pytest.raises(TrainingError, match=r"no finite numbers for model.norm.weight"):
        merge_folders(*folders, tmp_path / "merged", "slerp", 0.5)
    assert not (tmp_path / "merged").exists()


def test_a_full_disk_leaves_nothing_behind(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with full_disk(50_000), pytest.raises(TrainingError, match=r"cannot write the merged model .*merged: .*too large"):
        merge_folders(*folders, tmp_path / "merged", "slerp", 0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


def test_a_truncated_file_is_one_line(folders: tuple[Path, Path], tmp_path: Path) -> None:
    shard = json.loads((folders[1] / "model.safetensors.index.json").read_text())["weight_map"]["model.norm.weight"]
    (folders[1] / shard).write_bytes((folders[1] / shard).read_bytes()[:-10])
    with pytest.raises(TrainingError, match="cannot be read"):
        merge_folders(*folders, tmp_path / "merged", "slerp", 0.5)
